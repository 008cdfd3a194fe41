"""Seal every stored secret anew with the first of FERNET_KEYS, so that older keys can be taken away."""

import getpass
import json

from django.core.management.base import BaseCommand
from django.db import transaction

from catalog import audit
from pipelines import secrets
from pipelines.errors import SetupError
from pipelines.models import AfterStep, Pipeline, Provider, UpkeepJob


class Command(BaseCommand):
    help = (
        "Seals every stored secret anew with the first of FERNET_KEYS. Put a new key in front, restart web and workers, run this, "
        "then take the old keys away. Exit code: 0 done, 1 a secret could not be opened, 3 nothing is stored."
    )

    def add_arguments(self, parser):
        parser.add_argument("--json", action="store_true", help="print the outcome as JSON")

    def handle(self, *args, **options):
        self.rotated, self.references, self.failed = 0, 0, []
        for pk in Provider.objects.order_by("slug").values_list("pk", flat=True):
            # one row a transaction: a secret that no key opens must not keep the others on the old key
            with transaction.atomic():
                provider = Provider.objects.select_for_update().get(pk=pk)
                for name, stored in provider.secrets.items():
                    provider.secrets[name] = self._rotate(stored, provider=provider.slug, secret=name)
                provider.save(update_fields=["secrets"])
        for pk in AfterStep.objects.exclude(secret="").values_list("pk", flat=True):
            with transaction.atomic():
                step = AfterStep.objects.select_related("pipeline").select_for_update(of=("self",)).get(pk=pk)
                step.secret = self._rotate(step.secret, pipeline=step.pipeline.slug, step=step.pk, secret=step.kind)
                step.save(update_fields=["secret"])
        for pk in UpkeepJob.objects.exclude(webhook="").order_by("title").values_list("pk", flat=True):
            with transaction.atomic():
                job = UpkeepJob.objects.select_for_update().get(pk=pk)
                job.webhook = self._rotate(job.webhook, job=job.title, secret="webhook")  # noqa: S106  its name
                job.save(update_fields=["webhook"])
        for pk in Pipeline.objects.exclude(surrogate_key="").order_by("slug").values_list("pk", flat=True):
            # sealed anew, never another: the public ids are made with it
            with transaction.atomic():
                pipeline = Pipeline.objects.select_for_update().get(pk=pk)
                pipeline.surrogate_key = self._rotate(pipeline.surrogate_key, pipeline=pipeline.slug, secret="the key of its public ids")  # noqa: S106  its name
                Pipeline.objects.filter(pk=pk).update(surrogate_key=pipeline.surrogate_key)
        if self.rotated or self.failed:
            audit.write(
                audit.Actor(f"{getpass.getuser()} (command)"),
                "rotate keys",
                kind="secret",
                target="all providers, steps after loads, webhooks and public ids",
                result=f"{self.rotated} sealed anew, {len(self.failed)} could not be opened",
            )
        if options["json"]:
            self.stdout.write(json.dumps({"rotated": self.rotated, "references": self.references, "failed": self.failed}))
        else:
            for one in self.failed:
                step = f"{one['pipeline']}, step {one['step']} after a load" if "step" in one else ""
                owner = one.get("provider") or one.get("job") or step or one["pipeline"]
                self.stderr.write(f"{owner}, secret {one['secret']}: {one['message']} {one['next_step']}")
            told = f"{self.rotated} secrets sealed anew, {self.references} are references to the environment"
            self.stdout.write(f"{told}, {len(self.failed)} could not be opened.")
        if self.failed:
            raise SystemExit(1)
        if not self.rotated:
            raise SystemExit(3)

    def _rotate(self, stored: str, **owner) -> str:
        """What to store now: sealed anew, or as it was where it is a reference or can't be opened."""
        if stored.startswith(secrets.ENV):
            self.references += 1
            return stored
        try:
            sealed = secrets.rotate(stored)
        except SetupError as error:
            self.failed.append({**owner, "message": error.message, "next_step": error.next_step})
            return stored
        self.rotated += 1
        return sealed
