"""A lake over the lake: what is written stays in a folder of its own, what is read is looked for there first and then below.

For simulations: the stages work as always, and the lake below never changes.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from catalog.lake import FolderLake, Lake


class Overlay(FolderLake):
    """Files of `root` over those of `below`, which is only read."""

    def __init__(self, root: Path, below: Lake):
        super().__init__(root)
        self.below = below

    def local_path(self, pointer: str, workdir: Path, *, sha256: str = "") -> Path:
        if self._has(pointer):
            return super().local_path(pointer, workdir, sha256=sha256)
        return self.below.local_path(pointer, workdir, sha256=sha256)

    def describe(self) -> str:
        return f"{self.root}, over {self.below.describe()}"

    def sweep(self, older_than) -> list[str]:
        """Nothing: the folder goes as a whole."""
        return []

    def _has(self, pointer: str) -> bool:
        return super()._size(pointer) is not None

    def _sha256(self, pointer: str) -> str | None:
        return super()._sha256(pointer) or self.below._sha256(pointer)

    def _size(self, pointer: str) -> int | None:
        size = super()._size(pointer)
        return self.below._size(pointer) if size is None else size

    def _stream(self, pointer: str) -> BinaryIO:
        return super()._stream(pointer) if self._has(pointer) else self.below._stream(pointer)

    def _listing(self, before: datetime):
        return iter(())
