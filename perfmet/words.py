"""Which words are English: the names of columns are cut into words, and looked up in a bundled list.

The list is SCOWL's of size 60, American, British and Canadian (its licence lies beside it in `wordlists`). The setting
QUALITY_WORDS names another: a file with a word a line, plain or gzip; a city adds its own words so. The original asks WordNet,
which has to be downloaded, and knows some words more and some less.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path

from pipelines.errors import SetupError

BUNDLED = Path(__file__).parent / "wordlists" / "english.txt.gz"

#: Says of a token, in small letters, whether it is a word.
Knows = Callable[[str], bool]

#: Where a word of capitals and small letters begins, as the original finds it: "HTTPServer" is two words, "eventDate2020" as well.
_BEGINS = re.compile("(.)([A-Z][a-z]+)")
_ENDS = re.compile("([a-z0-9])([A-Z])")
_BETWEEN = re.compile(r"-|_|\s")

#: Plural endings and what stands there in the singular, as WordNet's own stemmer has them.
_PLURALS = (("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("ves", "f"), ("men", "man"), ("ies", "y"))


def snake(name: str) -> str:
    """A column's name in small letters, with "_" where a new word began with a capital."""
    return _ENDS.sub(r"\1_\2", _BEGINS.sub(r"\1_\2", name)).lower()


def tokens(name: str) -> list[str]:
    """The words of a column's name, in small letters: "bdngHeightMetres" has bdng, height, metres. Empty for a name of underscores."""
    return [token for token in _BETWEEN.split(snake(name)) if token]


def english_share(name: str, knows: Knows) -> float:
    """Which share of a name's words is English, 0 to 1. A name without any word has none of it."""
    found = tokens(name)
    return sum(1 for token in found if knows(token)) / len(found) if found else 0.0


def lexicon(words: Collection[str]) -> Knows:
    """What tells the words of a list, in small letters, and their plurals."""

    def knows(token: str) -> bool:
        if token in words:
            return True
        return any(token.endswith(ending) and token[: -len(ending)] + singular in words for ending, singular in _PLURALS if len(token) > len(ending))

    return knows


def english(path: str = "") -> Knows:
    """What tells English words: by the bundled list, or by the list in a file. Raises SetupError where that can't be read."""
    return lexicon(_listed(Path(path) if path else BUNDLED))


@cache
def _listed(path: Path) -> frozenset[str]:
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise SetupError(
            f"The list of words {path} can't be read: {error}.",
            code="no-words",
            next_step="Correct QUALITY_WORDS: the path of a UTF-8 file with a word a line, or nothing for the bundled list.",
        ) from error
    return frozenset(word for line in text.splitlines() if (word := line.strip().lower()))
