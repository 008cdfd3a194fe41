"""Files whose names carry their day: which names of a folder or a bucket are of a pattern, and what is fetched of them for a window.

A pattern is a file name with strptime's words for the date, `Austin_bt_%m-%d-%Y.txt`. Names are compared with their case. What is
no name of the pattern is passed over and counted, never unseen: a name that holds a date where the pattern has it, between
other words, is of another kind; any other is told as a warning, for a file that was named wrongly is a day that is missing.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path, PurePosixPath
from typing import Any
from zoneinfo import ZoneInfo

from pipelines.connectors.base import Account, FetchedFile, FetchRequest, Listed, Missing, Progress, SourceState
from pipelines.connectors.http import Door
from pipelines.errors import NeverCame, NotReady, SetupError

PIECE = 1 << 20
#: Days after its end that the files of a window are waited for, where the pipeline's options name no `late_days`.
LATE_DAYS = 3.0
ASK_AGAIN = 3600.0
#: So many names are shown of those that are no files of a pattern.
MOST_SHOWN = 3

_WORDS = {
    "Y": r"\d{4}", "y": r"\d{2}", "m": r"\d{1,2}", "d": r"\d{1,2}", "j": r"\d{1,3}", "H": r"\d{1,2}", "M": r"\d{1,2}", "S": r"\d{1,2}",
    "b": r"[A-Za-z]{3}", "B": r"[A-Za-z]{3,9}",
}  # fmt: skip
_TWO_DIGITS = frozenset("mdHMS")


# names


@dataclass(frozen=True)
class Moment:
    """What a name says of time: the wall time at which its span begins, and whether it names an hour, or only a day."""

    wall: datetime
    has_hour: bool

    def span(self, time_zone: str) -> tuple[datetime, datetime]:
        """(start, end) in UTC: an hour from there, else the local day."""
        zone = ZoneInfo(time_zone)
        start = self.wall.replace(tzinfo=zone).astimezone(UTC)
        if self.has_hour:
            return start, start + timedelta(hours=1)
        return start, (self.wall + timedelta(days=1)).replace(tzinfo=zone).astimezone(UTC)


class Pattern:
    """A file name with strptime's words. Raises ValueError, in words, for one that names no day or holds a word that is not known here."""

    def __init__(self, text: str):
        self.text = text
        parts = re.findall(r"%(.?)|([^%]+)", text, re.DOTALL)
        words = [word for word, literal in parts if not literal]
        if unknown := [word for word in words if word not in _WORDS and word != "%"]:
            raise ValueError(f"it has %{unknown[0]}, and the words for dates are {', '.join(f'%{word}' for word in _WORDS)}")
        has = set(words)
        if not (has & {"Y", "y"} and ("j" in has or ("d" in has and has & {"m", "b", "B"}))):
            raise ValueError("it names no day: a year, a month and a day are needed, as in Austin_bt_%m-%d-%Y.txt")
        #: the words in the order in which they are first met
        self._order = list(dict.fromkeys(word for word in words if word != "%"))
        self.has_hour = "H" in self._order
        self._name = re.compile(self._regex(parts))
        first, last = text.index(f"%{self._order[0]}"), max(text.rindex(f"%{word}") + 2 for word in self._order)
        #: what stands before the date, the date itself, and what stands behind it
        self.head, self.tail = text[:first].replace("%%", "%"), text[last:].replace("%%", "%")
        core = self._regex(re.findall(r"%(.?)|([^%]+)", text[first:last], re.DOTALL))
        self._core = re.compile(rf"(?<!\d){core}(?!\d)")

    @staticmethod
    def _regex(parts: Iterable[tuple[str, str]]) -> str:
        parts, seen, made = list(parts), set(), []
        for place, (word, literal) in enumerate(parts):
            if literal or word == "%":
                made.append(re.escape(literal or "%"))
            elif word in seen:
                made.append(f"(?P={word})")
            else:
                # beside another number, where one begins is told only by its digits
                beside = [parts[other][0] for other in (place - 1, place + 1) if 0 <= other < len(parts)]
                digits = r"\d{2}" if word in _TWO_DIGITS and any(one in _WORDS and one not in "bB" for one in beside if one) else _WORDS[word]
                made.append(f"(?P<{word}>{digits})")
                seen.add(word)
        return "".join(made)

    def moment(self, name: str) -> Moment | None:
        """What `name` says of time; None of a name that is not of this pattern."""
        return self._moment(self._name.fullmatch(name))

    def _moment(self, found: re.Match[str] | None) -> Moment | None:
        if found is None:
            return None
        try:
            wall = datetime.strptime(" ".join(found[word] for word in self._order), " ".join(f"%{word}" for word in self._order))  # noqa: DTZ007
        except ValueError:
            return None
        return Moment(wall, self.has_hour)

    def is_another_kind(self, name: str) -> bool:
        """Whether a name that is not of this pattern has its date, and its end, but other words before it: a file of a sister pattern."""
        if not name.endswith(self.tail):
            return False
        found = self._core.search(name)
        return self._moment(found) is not None and name[: found.start()].lower() != self.head.lower() and name[found.end() :] == self.tail


@dataclass(frozen=True)
class Held:
    """A file as its folder lists it: its name, its bytes, and a stamp that changes when it is written again."""

    name: str
    bytes: int
    stamp: str

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.name}\n{self.bytes}\n{self.stamp}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Shelf:
    """The files of one pattern, by what their names say of time; the second of one moment is passed over."""

    files: Mapping[datetime, tuple[Moment, Held]]

    def of(self, wall: datetime) -> Held | None:
        """The file of that moment, else of its day; None where there is neither."""
        found = self.files.get(wall) or self.files.get(datetime.combine(wall, time.min))
        return found[1] if found else None


# what is counted on the way


class LineCounter:
    """Counts the lines of a text that comes in pieces, as the sensors' formats do: quotes mean nothing, an empty line is no record."""

    def __init__(self) -> None:
        self._lines = 0
        #: whether the line that goes on in the next piece holds anything
        self._has_begun = False

    def feed(self, piece: bytes) -> None:
        first, *others = piece.split(b"\n")
        self._has_begun = self._has_begun or bool(first.strip())
        if others:
            *whole, last = others
            self._lines += self._has_begun + sum(1 for line in whole if line.strip())
            self._has_begun = bool(last.strip())

    @property
    def total(self) -> int:
        return self._lines + self._has_begun


def _counter(ext: str, has_header: bool | None) -> tuple[LineCounter | None, int]:
    """What counts the rows of such a file, and how many of its lines are none; None for what must be opened to be counted."""
    kind = PurePosixPath(f"x.{ext}").suffix.lower()
    if kind not in (".csv", ".txt", ".tsv", ".log"):
        return None, 0
    return LineCounter(), int(kind == ".csv" if has_header is None else has_header)


# options, and what it means that there is nothing


def bad_option(account: Account, name: str, wanted: str) -> SetupError:
    """The error for an option of a pipeline that makes no sense."""
    return SetupError(
        f"the option {name} of a pipeline of provider {account.slug} is wrong",
        code="bad-option",
        next_step=f"Write {wanted} as {name} in the pipeline's options.",
    )


def late_days_of(options: Mapping[str, Any], account: Account) -> float:
    """Days after its end that the things of a window are waited for. Raises SetupError."""
    late = options.get("late_days", LATE_DAYS)
    if isinstance(late, bool) or not isinstance(late, int | float) or not 0 <= late <= 3650:
        raise bad_option(account, "late_days", "a number of days")
    return float(late)


def area_of(options: Mapping[str, Any], account: Account) -> str:
    """What the things of one source are called by ("Austin"), as a part of a file name; "" where nobody says. Raises SetupError."""
    area = options.get("area", "")
    if not isinstance(area, str):
        raise bad_option(account, "area", "a text")
    return area.replace("/", "&")


def local_days(request: FetchRequest) -> list[date]:
    """The local days that begin in the request's window."""
    zone = ZoneInfo(request.time_zone)
    day, days = request.starts_at.astimezone(zone).date(), []
    while (start := datetime.combine(day, time.min, zone)) < request.ends_at:
        days += [day] if start >= request.starts_at else []
        day += timedelta(days=1)
    return days


def absent(where: str, what: str, days: Sequence[date], request: FetchRequest, late_days: float, *, is_all: bool) -> list[Missing]:
    """What it means that `where` has nothing of these days of the request's window: by how long ago that was, they are waited for, or never came.

    Raises NotReady in the first case. In the second, returns them where the window has others, and raises NeverCame where `is_all`.
    """
    shown = ", ".join(f"{day:%a %b} {day.day} {day.year}" for day in days[:MOST_SHOWN]) + ", …" * (len(days) > MOST_SHOWN)
    words = f"{where} has no {what} of {shown or f'{request.starts_at.astimezone(ZoneInfo(request.time_zone)):%Y-%m-%d %H:%M}'}"
    given_up_at = request.ends_at + timedelta(days=late_days)
    now = request.asked_at or datetime.now(UTC)
    if now < given_up_at:
        raise NotReady(f"{words} yet", retry_after=min(ASK_AGAIN, (given_up_at - now).total_seconds() + 1), code="not-there-yet")
    if is_all:
        raise NeverCame(
            f"{words}, {late_days:g} days after it",
            code="never-came",
            next_step="Ask whoever delivers it. When it comes, run the block again; if there is none, accept the block.",
        )
    return [Missing(f"{what} of {day}", f"it never came, {late_days:g} days after its time", "never-came") for day in days]


@dataclass(frozen=True)
class Wishes:
    """What the pipeline's options say of its files."""

    base: str
    kind: str
    helpers: Mapping[str, Pattern]
    late_days: float
    has_header: bool | None

    def ext(self, name: str) -> str:
        """The ext by which the catalog tells the file: "unmatched.txt" of the kind "unmatched", "csv" where none is named."""
        return extension(name, self.kind)


def extension(name: str, kind: str) -> str:
    ending = "".join(PurePosixPath(name).suffixes[-1:]).removeprefix(".") or "bin"
    return f"{kind}.{ending}" if kind else ending


class DatedFiles(ABC):
    """The source's half of a connector that holds files by day; a subclass lists the names and copies a file."""

    account: Account
    door: Door
    missing: Sequence[Missing]

    @abstractmethod
    def _where(self) -> str:
        """The folder or bucket in words, without secrets. Raises SetupError for an address that is none."""

    @abstractmethod
    def _held(self, patterns: Iterable[Pattern]) -> Iterator[Held]:
        """Every file there is, of which some may be of these patterns. Raises PipelineError."""

    @abstractmethod
    def _pieces(self, held: Held, folder: Path) -> Iterator[bytes]:
        """The bytes of a file as it was listed; `folder` may hold it meanwhile. Raises TransientError where it has changed since."""

    @abstractmethod
    def _origin(self, name: str) -> str:
        """The address of a file, without secrets."""

    # the verbs
    def describe(self, resource: str) -> SourceState:
        """The pattern, looked through; no request. Files have no columns before their reader has seen them."""
        self._pattern(resource, "the resource")
        return SourceState(title=f"{resource} in {self._where()}", columns=())

    def listing(self, resource: str, request: FetchRequest) -> Iterator[Listed]:
        """A file a day (or hour). The fingerprint is of its name, size and stamp, and of those of its helpers."""
        listing = self._listing(resource, request)
        for moment, held in listing.wanted(request):
            starts_at, ends_at = moment.span(request.time_zone)
            yield Listed(
                base=listing.wishes.base,
                ext=listing.wishes.ext(held.name),
                starts_at=starts_at,
                ends_at=ends_at,
                label=self._origin(held.name),
                fingerprint=listing.fingerprint(moment, held),
            )

    def fetch(self, resource: str, request: FetchRequest, *, rows: int | None, workdir: Path, progress: Progress) -> Iterator[FetchedFile]:
        """Yield the files of the window as they are, in the order of time, each followed by its helpers (with their `role`).

        A helper that is not there is told and no reason to stop. Raises NotReady while a day of the window is waited for, and
        NeverCame when none of them is and none came; some that did not are `missing`.
        """
        if request.starts_at is None or request.ends_at is None:
            raise SetupError(
                f"the files of provider {self.account.slug} are told by their day, and none is asked for",
                code="no-window",
                next_step="Set the window column of the pipeline, so that each block is a day.",
            )
        listing = self._listing(resource, request)
        wanted = list(listing.wanted(request))
        have = {moment.wall.date() for moment, _ in wanted}
        # how many hours of a day have files only their maker knows: there, any of them will do
        lacks = [day for day in local_days(request) if day not in have and not (have and listing.pattern.has_hour)]
        self.missing = []
        if lacks or not wanted:
            self.missing = absent(self._where(), f"file {resource}", lacks, request, listing.wishes.late_days, is_all=not wanted)
        done = 0
        for moment, held in wanted:
            helpers = {role: shelf.of(moment.wall) for role, shelf in listing.helpers.items()}
            missing = [role for role, helper in helpers.items() if helper is None]
            for role in missing:
                self.door.tell("warning", f"{held.name} comes without its file of {role}: {self._where()} has none of {moment.wall:%Y-%m-%d}")
            about = {
                "base": listing.wishes.base,
                "collection_date": f"{moment.wall:%Y-%m-%d}",
                "origin_filename": PurePosixPath(held.name).name,
            }
            mark = {"ext": listing.wishes.ext(held.name), "fingerprint": listing.fingerprint(moment, held)}
            main = self._fetched(held, workdir, {**about, **mark, **({"missing": missing} if missing else {})}, listing.wishes.has_header)
            done += main.rows or 1
            progress(done, None)
            yield main
            for role, helper in helpers.items():
                if helper is not None:
                    told = {**about, "ext": extension(helper.name, role), "origin_filename": PurePosixPath(helper.name).name, "role": role}
                    yield self._fetched(helper, workdir, told, None)

    # beneath them
    def _fetched(self, held: Held, workdir: Path, metadata: Mapping[str, Any], has_header: bool | None) -> FetchedFile:
        name = PurePosixPath(held.name).name
        path, digest, size = workdir / name, hashlib.sha256(), 0
        counter, header = _counter(metadata["ext"], has_header)
        with path.open("wb") as file:
            for piece in self._pieces(held, workdir):
                file.write(piece)
                digest.update(piece)
                size += len(piece)
                if counter:
                    counter.feed(piece)
        rows = max(counter.total - header, 0) if counter else None
        return FetchedFile(name, path, rows, size, digest.hexdigest(), self._origin(held.name), metadata)

    def _listing(self, resource: str, request: FetchRequest) -> _Listing:
        pattern, wishes = self._pattern(resource, "the resource"), self._wishes(resource, request.options)
        return _Listing(self, pattern, wishes)

    def _pattern(self, text: str, what: str) -> Pattern:
        try:
            return Pattern(text.strip())
        except ValueError as error:
            raise SetupError(
                f"{what} {text!r} is no pattern of file names of provider {self.account.slug}: {error}",
                code="bad-pattern",
                next_step="Write the name of a file with %Y, %m and %d where its date stands.",
            ) from None

    def _wishes(self, resource: str, options: Mapping[str, Any]) -> Wishes:
        helpers, header = options.get("helpers") or {}, options.get("header")
        if not isinstance(helpers, Mapping) or not all(isinstance(text, str) for text in helpers.values()):
            raise bad_option(self.account, "helpers", 'names and patterns, as in {"matched": "Austin_btmatch_%m-%d-%Y.txt"}')
        if header not in (None, True, False):
            raise bad_option(self.account, "header", "true or false")
        kind = options.get("file", "")
        if not isinstance(kind, str):
            raise bad_option(self.account, "file", "a text")
        return Wishes(
            base=area_of(options, self.account) or PurePosixPath(resource.partition("%")[0]).name.strip("_-. ") or self.account.slug,
            kind=kind,
            helpers={role: self._pattern(text, f"the helper {role}") for role, text in helpers.items()},
            late_days=late_days_of(options, self.account),
            has_header=header,
        )


class _Listing:
    """One look at what is there: the files of the pattern and of its helpers. What is neither is counted and told."""

    def __init__(self, source: DatedFiles, pattern: Pattern, wishes: Wishes):
        self.source, self.pattern, self.wishes = source, pattern, wishes
        patterns = {"": pattern, **wishes.helpers}
        files: dict[str, dict[datetime, tuple[Moment, Held]]] = {role: {} for role in patterns}
        twice, others, unread = [], [], []
        for held in sorted(source._held(patterns.values()), key=lambda one: one.name):
            role, moment = next(((role, found) for role, one in patterns.items() if (found := one.moment(held.name))), ("", None))
            if moment is None:
                (others if pattern.is_another_kind(held.name) else unread).append(held.name)
            elif moment.wall in files[role]:
                twice.append(held.name)
            else:
                files[role][moment.wall] = (moment, held)
        self.shelf = Shelf(dict(sorted(files[""].items())))
        self.helpers = {role: Shelf(files[role]) for role in wishes.helpers}
        self._tell("warning", twice, "of a time that another file has already, passed over")
        self._tell("warning", unread, f"that are no files of {pattern.text}, passed over")
        self._tell("info", others, "of other kinds")

    def _tell(self, level: str, names: list[str], what: str) -> None:
        if names:
            shown = ", ".join(name if name.isprintable() else ascii(name) for name in names[:MOST_SHOWN]) + ", …" * (len(names) > MOST_SHOWN)
            self.source.door.tell(level, f"{self.source._where()} has {len(names):,} file{'s' * (len(names) != 1)} {what}: {shown}")

    def wanted(self, request: FetchRequest) -> Iterator[tuple[Moment, Held]]:
        """The files whose span begins in the request's, in the order of time."""
        for moment, held in self.shelf.files.values():
            starts_at, _ = moment.span(request.time_zone)
            if (request.starts_at is None or request.starts_at <= starts_at) and (request.ends_at is None or starts_at < request.ends_at):
                yield moment, held

    def fingerprint(self, moment: Moment, held: Held) -> str:
        """Of the file and its helpers: a helper that came late changes what is made of the file."""
        marks = [held.fingerprint, *(helper.fingerprint for shelf in self.helpers.values() if (helper := shelf.of(moment.wall)))]
        return marks[0] if len(marks) == 1 else hashlib.sha256("\n".join(marks).encode()).hexdigest()[:16]
