"""A folder into which somebody drops a file a day: what lies there is copied as it is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from pipelines.connectors.base import Connector, Parameter
from pipelines.connectors.dated_files import PIECE, DatedFiles, Held, Pattern
from pipelines.errors import NotReady, SetupError, TransientError


class Folder(DatedFiles, Connector):
    """Files by day in one folder of this machine. The resource is a pattern of names, `Austin_bt_%m-%d-%Y.txt`; folders below are not entered."""

    kind = "folder"
    label = "Folder of files by day"
    can_fetch = True
    can_count = False
    can_list = True
    address_hint = "/srv/awam"
    parameters = (
        Parameter("quiet_seconds", "Quiet time (s)", default="0", help="A file that was written to more lately than this is left to be finished."),
    )

    @property
    def folder(self) -> Path:
        """The folder. Raises SetupError if it is not one that can be read."""
        slug, folder = self.account.slug, self.whole_path
        if not folder.is_dir() or not os.access(folder, os.R_OK | os.X_OK):
            raise SetupError(
                f"the folder {folder} of provider {slug} does not exist or may not be read",
                code="folder",
                next_step=f"Create or mount {folder}, and let the user that runs the workers read it.",
            )
        return folder

    @property
    def _quiet(self) -> float:
        told = str(self.account.parameters.get("quiet_seconds") or "0")
        if not told.strip().isdigit():
            raise SetupError(
                f"the quiet time of provider {self.account.slug} is {told!r}, which is no number of seconds",
                code="bad-parameter",
                next_step="Write a whole number there.",
            )
        return float(told)

    def test(self) -> str:
        files = list(self._held(()))
        newest = max((held.stamp for held in files), key=int, default="")
        when = f", the newest of {datetime.fromtimestamp(int(newest) / 1e9, UTC):%Y-%m-%d %H:%M} UTC" if newest else ""
        return f"{self._where()} can be read; it holds {len(files):,} file{'s' * (len(files) != 1)}{when}"

    def _where(self) -> str:
        return str(self.folder)

    def _origin(self, name: str) -> str:
        return str(self.folder / name)

    def _held(self, patterns: Iterable[Pattern]) -> Iterator[Held]:
        for pattern in patterns:
            if "/" in pattern.text:
                raise SetupError(
                    f"{pattern.text!r} leads into a folder below {self._where()}",
                    code="bad-pattern",
                    next_step="Write a plain file name as the resource, and the whole folder as the provider's address.",
                )
        with os.scandir(self.folder) as entries:
            for entry in entries:
                try:
                    if not entry.is_file():
                        continue
                    stat = entry.stat()
                except FileNotFoundError:
                    continue  # taken away between the listing and the look at it
                yield Held(entry.name, stat.st_size, str(stat.st_mtime_ns))

    def _pieces(self, held: Held, folder: Path) -> Iterator[bytes]:
        path = self.folder / held.name
        try:
            with path.open("rb") as file:
                self._is_finished(held)
                while piece := file.read(PIECE):
                    yield piece
                now = os.fstat(file.fileno())
        except PermissionError as error:
            raise SetupError(
                f"{path} may not be read: {error.strerror}", code="folder", next_step="Let the user that runs the workers read it."
            ) from error
        except FileNotFoundError:
            raise TransientError(f"{path} was taken away while it was to be read", code="source-moved") from None
        if (now.st_size, str(now.st_mtime_ns)) != (held.bytes, held.stamp):
            raise TransientError(f"{path} was written to while it was read", code="source-moved")

    def _is_finished(self, held: Held) -> None:
        """Raise NotReady for a file that was written to just now, where the folder is filled slowly."""
        if not (quiet := self._quiet):
            return
        age = datetime.now(UTC).timestamp() - int(held.stamp) / 1e9
        if age < quiet:
            raise NotReady(f"{held.name} was written to {max(age, 0):.0f} s ago and may not be whole yet", retry_after=quiet, code="still-written")
