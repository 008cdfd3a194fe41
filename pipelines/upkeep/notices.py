"""What a webhook is told: of a block's end one sentence with its emoji, of an upkeep job what it found; cut into posts that Slack takes."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: A longer text is cut off or refused by Slack.
LONGEST = 3_000
#: More posts about one thing would be a flood, and of a text this long the page of the block or of the job has the rest.
MOST_POSTS = 10
#: Between these, Slack shows a table as it stands.
FENCE = "```"

WELL, BADLY, PERHAPS = "well", "badly", "perhaps"
EMOJI = {WELL: " :grin: ", BADLY: " :rage: ", PERHAPS: " :confused: "}
#: What is said where a block left no message.
SILENT = {WELL: "All stages went well.", BADLY: "No reason was given.", PERHAPS: "No reason was given."}


@dataclass(frozen=True)
class Ending:
    """How a block ended: `how` is WELL, BADLY, or PERHAPS for whatever a person should look at though nothing failed."""

    title: str
    how: str
    message: str
    inserted: int = 0
    updated: int = 0
    prefix: str = ""


def sentence(ending: Ending) -> str:
    """The whole text, as a person reads it."""
    message = ending.message or SILENT[ending.how]
    said = {
        WELL: f'"{ending.title}" loaded [{ending.inserted:,}] records, updated [{ending.updated:,}] records, and finished with message "{message}"',
        BADLY: f'FAILURE: Something went wrong in {ending.title}: "{message}"',
        PERHAPS: f"Something might have failed in {ending.title}: {message}",
    }[ending.how]
    return f"{ending.prefix}{EMOJI[ending.how]}{said}"


def posts(ending: Ending) -> list[dict[str, str]]:
    """The payloads to post, in order; each text is short enough for Slack."""
    return payloads(sentence(ending))


def payloads(text: str) -> list[dict[str, str]]:
    """A text as the payloads to post."""
    return [{"text": piece} for piece in _bounded(split(_escaped(text), LONGEST), "the block")]


def reports(head: str, text: str, sender: str) -> list[dict[str, str]]:
    """What an upkeep job found, as the payloads to post: `head` stands over each, and a table that is cut stays a table."""
    head, text = _escaped(head), _escaped(text)
    room = LONGEST - len(head) - 1 - (2 * (len(FENCE) + 1) if FENCE in text else 0)
    pieces = _fenced(_bounded(split(text, room), "the job"))
    return [{"text": f"{head}\n{piece}", "username": sender} for piece in pieces]


def _escaped(text: str) -> str:
    # three signs are Slack's own: unescaped, a message that quotes <!channel> would call everybody
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _bounded(pieces: list[str], place: str) -> list[str]:
    if len(pieces) <= MOST_POSTS:
        return pieces
    left_out = f"… and {sum(map(len, pieces[MOST_POSTS - 1 :])):,} more characters, on the page of {place}."
    return [*pieces[: MOST_POSTS - 1], left_out]


def _fenced(pieces: list[str]) -> list[str]:
    """The pieces, each with the fences that a cut inside a table took from it."""
    whole, is_open = [], False
    for piece in pieces:
        begins = f"{FENCE}\n" if is_open else ""
        is_open ^= piece.count(FENCE) % 2 == 1
        whole.append(f"{begins}{piece}" + (f"\n{FENCE}" if is_open else ""))
    return whole


def split(text: str, limit: int) -> list[str]:
    """The text in pieces of `limit` characters at most: at line ends, else at spaces, else anywhere but inside an escaped sign."""
    pieces = []
    while len(text) > limit:
        at = _cut(text, limit)
        pieces.append(text[:at])
        # the sign at which we cut is the space between two posts
        text = text[at + 1 :] if text[at] in "\n " else text[at:]
    return [*pieces, text]


def _cut(text: str, limit: int) -> int:
    for sign in ("\n", " "):
        # one that stands too far back would make a crowd of small posts
        if (at := text.rfind(sign, limit // 2, limit + 1)) > 0:
            return at
    escaped = re.search(r"&[a-z]{0,3}$", text[:limit])
    return escaped.start() if escaped and escaped.start() else limit
