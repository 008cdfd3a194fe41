"""Write the configuration: as the app's own YAML, which import_config reads back to the letter, as the files of atd-mds, or as Toronto's."""

import json
import os
import sys
from pathlib import Path

from django.conf import settings

from catalog import audit, boundaries
from catalog.models import BoundaryLayer, Dataset
from pipelines.importers import atd_mds_export, files, own, toronto_yaml_export
from pipelines.importers.plan import KEEP
from pipelines.management.base import DONE, NOTHING, OpsCommand, me, pipelines_named, refusal
from pipelines.models import Pipeline, Provider

YAML, ATD_MDS, TORONTO = "yaml", "atd-mds", "toronto"


class Command(OpsCommand):
    help = (
        "Write providers, datasets (with their dictionary), boundaries, pipelines (with their steps after a load and their enrichments) and "
        "upkeep jobs as YAML: every setting, and no secret; one that is stored encrypted reads `sealed`. Importing the file here changes "
        "nothing; elsewhere it makes the same city and says which secrets must be entered. With --format atd-mds: the operators, or the "
        "settings of their portal, as atd-mds has them. With --format toronto: the dataset files of Toronto's operations, one a package."
    )

    def add_arguments(self, parser):
        super().add_arguments(parser)
        parser.epilog = "exit codes: 0 written, 2 refused, 3 nothing is configured"
        parser.add_argument("pipelines", nargs="*", metavar="PIPELINE", help="only these and what they refer to (default: everything)")
        parser.add_argument(
            "-o", "--output", metavar="FILE",
            help="write to this file or s3://bucket/key, with --json too; areas of boundaries lie beside it. Toronto's: also a folder (DIR/), "
            "in which each package gets a file of its name",
        )  # fmt: skip
        parser.add_argument(
            "--format", choices=[YAML, ATD_MDS, TORONTO], default=YAML, help="our own YAML (the default), atd-mds' JSON, or Toronto's dataset YAML"
        )
        parser.add_argument("--what", choices=["providers", "settings"], default="", help="which file of atd-mds")
        parser.add_argument("--fernet-key-env", default="", metavar="NAME", help="encrypt atd-mds' file with the Fernet key in this variable")
        parser.add_argument("--with-secrets", action="store_true", help="write the secrets of atd-mds' file in clear text; the audit keeps who did")
        parser.add_argument("--reason", default="", help="why secrets are written out; kept in the audit, and needed where ENVIRONMENT is prod")

    def act(self, **options) -> int:
        if options["format"] == ATD_MDS:
            return self._for_atd_mds(options)
        for name in ("what", "fernet_key_env", "with_secrets"):
            if options[name]:
                raise refusal(f"--{name.replace('_', '-')} belongs to --format atd-mds.", "Leave it out, or add --format atd-mds.")
        if options["format"] == TORONTO:
            return self._for_toronto(options)
        chosen = options["pipelines"]
        told = own.document([pipeline.slug for pipeline in pipelines_named(chosen)] if chosen else None)
        text = own.write(told)
        if output := options["output"]:
            self._save(output, text.encode())
            for slug, one in told.get("boundaries", {}).items():
                self._save(files.beside(output, one["file"]), boundaries.content_of(BoundaryLayer.objects.get(slug=slug)))
        if self.as_json:
            self.print_json(told)
        elif not output:
            self.stdout.write(text, ending="")
        self._summarise(told, output)
        return DONE if any(told.values()) else NOTHING

    def _for_toronto(self, options) -> int:
        datasets = Dataset.objects.prefetch_related("columns")
        if names := options["pipelines"]:
            datasets = datasets.filter(pipelines__in=pipelines_named(names)).distinct()
        told, notes = toronto_yaml_export.packages(datasets)
        output = options["output"]
        for note in notes if names or told else ():
            self.stderr.write(f"Note: {note}")
        if not told:
            self.stderr.write("No dataset here can be a file of Toronto's.\nNext: python3 manage.py import_config FILE…, or make one in the browser.")
            return NOTHING
        if output and (output.endswith("/") or Path(output).is_dir()):
            if "://" not in output and Path(output).parent.is_dir():
                Path(output).mkdir(exist_ok=True)
            for name, package in told.items():
                self._save(f"{output.rstrip('/')}/{name}.yaml", toronto_yaml_export.write({name: package}).encode())
        elif output:
            self._save(output, toronto_yaml_export.write(told).encode())
        if self.as_json:
            self.print_json(told)
        elif not output:
            self.stdout.write(toronto_yaml_export.write(told), ending="")
        if output:
            self.stderr.write(f"{len(told)} {'package' if len(told) == 1 else 'packages'} written to {output}.")
        return DONE

    def _for_atd_mds(self, options) -> int:
        what, output, with_secrets, reason = options["what"], options["output"], options["with_secrets"], options["reason"].strip()
        if not what:
            raise refusal("Which file of atd-mds is wanted?", "Add --what providers or --what settings.")
        if with_secrets and settings.ENVIRONMENT == "prod" and not reason:
            raise refusal("On the production system secrets are written out for a reason only.", "Add --reason and say why.")
        chosen = pipelines_named(options["pipelines"]) if options["pipelines"] else list(Pipeline.objects.select_related("provider", "portal"))
        chosen = [pipeline for pipeline in chosen if pipeline.provider.kind == "mds"]
        operators = {pipeline.provider for pipeline in chosen} if options["pipelines"] else set(Provider.objects.filter(kind="mds"))
        if not operators:
            self.stderr.write("No operator is configured.\nNext: python3 manage.py import_config providers_*.json, or make a provider in the admin.")
            return NOTHING
        notes: list[str] = []
        if what == "providers":
            told, notes = atd_mds_export.providers(operators, with_secrets=with_secrets)
            touched = sorted(provider.slug for provider in operators)
        else:
            told = atd_mds_export.settings(chosen, with_secrets=with_secrets)
            touched = sorted({pipeline.portal.slug for pipeline in chosen if pipeline.portal})
        content = (json.dumps(told, indent=4, ensure_ascii=False) + "\n").encode()
        if variable := options["fernet_key_env"]:
            content = self._closed(content, variable)
        if with_secrets:
            where = output or "the terminal"
            audit.write(me(), "export", kind="secret", target=", ".join(touched), reason=reason, result=f"{what} of atd-mds with secrets, to {where}")
        if output:
            self._save(output, content, is_secret=with_secrets)
        else:
            self.stdout.write(content.decode().rstrip("\n"))
        for note in notes:
            self.stderr.write(f"Note: {note}")
        if output:
            self.stderr.write(f"{what.capitalize()} written to {output}{', encrypted' if variable else ''}.")
        if not with_secrets:
            self.stderr.write("Without its secrets: where `sealed` stands, one is stored here. Write them too with --with-secrets.")
        return DONE

    def _closed(self, content: bytes, variable: str) -> bytes:
        if not os.environ.get(variable):
            raise refusal(f"The environment has no {variable}.", "Set it to a Fernet key, or leave --fernet-key-env out.")
        try:
            return files.closed(content, os.environ[variable])
        except files.Unreadable as error:
            raise refusal(error.message, error.next_step) from None

    def _save(self, path: str, content: bytes, *, is_secret: bool = False) -> None:
        try:
            files.write(path, content, is_secret=is_secret)
        except files.Unreadable as error:
            raise refusal(error.message, error.next_step) from error

    def _summarise(self, told, output: str | None) -> None:
        """Beside the configuration, what a person should know; on stderr, for stdout is often a file."""
        sealed = [f"{slug}: {name}" for slug, one in told["providers"].items() for name, value in one["secrets"].items() if value == KEEP]
        for slug, one in told["pipelines"].items():
            sealed += [f"{slug}: step {number} after a load" for number, step in enumerate(one["after"], start=1) if step["secret"] == KEEP]
        if not any(told.values()):
            self.stderr.write("Nothing is configured yet.\nNext: python3 manage.py import_config FILE, or make a provider in the admin.")
        elif output:
            self.stderr.write(f"{', '.join(f'{len(things)} {section}' for section, things in told.items())} written to {output}.")
        if sealed and (output or sys.stderr.isatty()):
            self.stderr.write(f"Not in it, for they are sealed here: {'; '.join(sealed)}. The file's first lines say how to enter them elsewhere.")
