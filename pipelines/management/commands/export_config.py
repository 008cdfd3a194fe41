"""Write the configuration as the app's own YAML, without any secret; import_config reads it back, to the letter."""

import os
import sys
from pathlib import Path

from pipelines.importers import own
from pipelines.importers.plan import KEEP
from pipelines.management.base import DONE, NOTHING, OpsCommand, pipelines_named, refusal


class Command(OpsCommand):
    help = (
        "Write providers, datasets (with their dictionary) and pipelines (with their steps after a load) as YAML: every setting, and no "
        "secret; one that is stored encrypted reads `sealed`. Importing the file here changes nothing; elsewhere it makes the same city "
        "and says which secrets must be entered."
    )

    def add_arguments(self, parser):
        super().add_arguments(parser)
        parser.epilog = "exit codes: 0 written, 2 refused, 3 nothing is configured"
        parser.add_argument("pipelines", nargs="*", metavar="PIPELINE", help="only these and what they refer to (default: everything)")
        parser.add_argument("--output", metavar="FILE", help="write YAML to this file, with --json too")

    def act(self, **options) -> int:
        chosen = options["pipelines"]
        told = own.document([pipeline.slug for pipeline in pipelines_named(chosen)] if chosen else None)
        text = own.write(told)
        if options["output"]:
            self._save(Path(options["output"]), text)
        if self.as_json:
            self.print_json(told)
        elif not options["output"]:
            self.stdout.write(text, ending="")
        self._summarise(told, options["output"])
        return DONE if any(told.values()) else NOTHING

    def _save(self, path: Path, text: str) -> None:
        """The whole file or none: a full disk must not leave half a configuration under the name of the last good one."""
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.write_text(text, encoding="utf-8", newline="\n")
            part.replace(path)
        except OSError as error:
            raise refusal(f"{path} can't be written: {error.strerror}.", "Name a file in a folder that you may write to.") from error
        finally:
            part.unlink(missing_ok=True)

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
