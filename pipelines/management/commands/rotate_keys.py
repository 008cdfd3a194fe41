"""Seal every stored secret anew with the first of FERNET_KEYS, so that older keys can be taken away."""

import getpass
import json

from django.core.management.base import BaseCommand
from django.db import transaction

from catalog import audit
from pipelines import secrets
from pipelines.errors import SetupError
from pipelines.models import Provider


class Command(BaseCommand):
    help = (
        "Seals every stored secret anew with the first of FERNET_KEYS. Put a new key in front, restart web and workers, run this, "
        "then take the old keys away. Exit code: 0 done, 1 a secret could not be opened, 3 nothing is stored."
    )

    def add_arguments(self, parser):
        parser.add_argument("--json", action="store_true", help="print the outcome as JSON")

    def handle(self, *args, **options):
        rotated, references, failed = 0, 0, []
        for pk in Provider.objects.order_by("slug").values_list("pk", flat=True):
            # one provider a transaction: a secret that no key opens must not keep the others on the old key
            with transaction.atomic():
                provider = Provider.objects.select_for_update().get(pk=pk)
                for name, stored in provider.secrets.items():
                    if stored.startswith(secrets.ENV):
                        references += 1
                        continue
                    try:
                        provider.secrets[name] = secrets.rotate(stored)
                        rotated += 1
                    except SetupError as error:
                        failed.append({"provider": provider.slug, "secret": name, "message": error.message, "next_step": error.next_step})
                provider.save(update_fields=["secrets"])
        if rotated or failed:
            audit.write(
                audit.Actor(f"{getpass.getuser()} (command)"),
                "rotate keys",
                kind="secret",
                target="all providers",
                result=f"{rotated} sealed anew, {len(failed)} could not be opened",
            )
        if options["json"]:
            self.stdout.write(json.dumps({"rotated": rotated, "references": references, "failed": failed}))
        else:
            for one in failed:
                self.stderr.write(f"{one['provider']}, secret {one['secret']}: {one['message']} {one['next_step']}")
            self.stdout.write(f"{rotated} secrets sealed anew, {references} are references to the environment, {len(failed)} could not be opened.")
        if failed:
            raise SystemExit(1)
        if not rotated:
            raise SystemExit(3)
