"""Lines of a text file, in pieces: memory is one piece deep, whatever the file holds, and no byte of it raises.

A piece that holds nothing but plain ASCII, as nearly all do, may be cut and put into JSON as it stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

#: What the processor's own memory holds: a bigger one takes longer.
PIECE = 64 * 1024
#: A longer line is none of a sensor's; it is kept no longer than shows that.
LONGEST = 64 * 1024
#: What stands in JSON as it stands in the file, and the line end.
_PLAIN = bytes(sign for sign in range(32, 127) if sign not in b'"\\') + b"\n"
_BOM = b"\xef\xbb\xbf"


def pieces(path: Path) -> Iterator[bytes]:
    """The file in pieces of whole lines, without the last line end of each; lines end with LF or CR LF, and LF alone stands between them.

    A line longer than LONGEST may come cut, and is still longer than LONGEST.
    """
    with path.open("rb") as file:
        rest = file.read(len(_BOM)).removeprefix(_BOM)
        while piece := file.read(PIECE):
            whole, end, begun = piece.rpartition(b"\n")
            if end:
                yield _unix(rest + whole)
                rest = begun
            else:
                rest = (rest + piece)[: LONGEST + 2]
        if rest:
            yield _unix(rest.removesuffix(b"\n"))


def _unix(piece: bytes) -> bytes:
    if b"\r" not in piece:
        return piece
    return piece.replace(b"\r\n", b"\n").removesuffix(b"\r")


def is_plain(piece: bytes) -> bool:
    """Whether each cell of the piece is its own JSON text: printable ASCII, no quote, no backslash."""
    return not piece.translate(None, _PLAIN)


def problem_of(line: bytes) -> str:
    """Why a line is no text that a database could keep; "" where it is one."""
    if len(line) > LONGEST:
        return f"is longer than {LONGEST:,} bytes"
    if b"\0" in line:
        return "holds a NUL byte"
    try:
        line.decode()
    except UnicodeDecodeError:
        return "is not UTF-8"
    return ""


def shown(line: bytes) -> str:
    """A line of any bytes as it can be kept and read: its beginning, with what is no text as `\\x..`."""
    return line[:2_000].decode("utf-8", "backslashreplace").replace("\0", "\\x00")
