"""Files at web addresses: one, or one a year or a quarter where the address has `yyyy` or `qq` in it.

A file is read whole and kept as it came. What it is, only its reader knows; here it is only seen that it is no web page, nor
anything else that can't be what the pipeline wants, and that of a page of OData the others come, too.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from pipelines.connectors import odata
from pipelines.connectors.base import Account, Connector, FetchedFile, FetchRequest, Parameter, Progress, SourceState
from pipelines.connectors.dated_files import bad_option
from pipelines.connectors.http import REDIRECTS, Door, Manners, Reply
from pipelines.errors import DataError, PermanentError, PipelineError, SetupError, TransientError

#: The first year that a `yyyy` may stand for; the last is next year.
FIRST_YEAR = 2000
#: So many questions whether a file exists are on their way at once: there are up to 224 of them, and one server.
PROBES = 3
HEADERS = 3
#: A file changed this lately may change again within the second that its stamp shows.
SURE_AFTER = timedelta(seconds=2)
#: As much of a file's beginning tells what it is.
OPENING = 64 * 1024

FORMATS = ("csv", "json", "geojson", "xlsx")
#: Readers whose servers give a part unless they are asked page by page.
ODATA_READERS = ("tobids",)
#: What a file begins with → what that is. Text of which nothing is certain is left to its reader.
_BEGINNINGS = (
    (b"<!doctype html", "a web page"), (b"<html", "a web page"), (b"<?xml", "XML"), (b"%pdf-", "a PDF"), (b"pk\x03\x04", "an Excel file or zip"),
    (b"\xd0\xcf\x11\xe0", "an Excel file of the old kind (.xls)"), (b"\x1f\x8b", "a gzip file"), (b"{", "JSON"),
)  # fmt: skip
#: What cannot be what is wanted; of a format that is not known, a web page.
_NEVER = {
    "csv": {"a web page", "XML", "a PDF", "an Excel file or zip", "an Excel file of the old kind (.xls)", "a gzip file", "JSON"},
    "json": {"a web page", "XML", "a PDF", "an Excel file or zip", "an Excel file of the old kind (.xls)", "a gzip file"},
}
_NEVER["geojson"] = _NEVER["json"]

_READING = Manners(redirects="all")
_GONE = frozenset({"http-404", "http-410"})
#: While it is asked whether a file exists: a redirect mostly leads to a page that says that it does not.
_ELSEWHERE = frozenset(f"http-{status}" for status in REDIRECTS)
_PROBING = Manners(redirects="none", answers=_ELSEWHERE)


@dataclass(frozen=True)
class There:
    """A file of a template that exists: its label ("2024", "2024-3"), its address, and what the server says of its state (None: nothing)."""

    label: str
    resource: str
    mark: str | None
    changed_at: datetime | None


class WebFile(Connector):
    """Files of one web server. A resource is a path with its query; `yyyy` and `qq` in it stand for each year and quarter that exists.

    Options of a pipeline: `multi` says that they do, `published_format` what the file should be, `custom_reader` that only this reader
    knows. `odata` asks page by page, as readers of Toronto's bids portal need it. `helpers` are further files that a reader wants
    beside the first, by their role: {"joined": "/green-roofs.xlsx"}.
    """

    kind = "web_file"
    label = "Files at a web address"
    can_fetch = True
    can_count = False
    address_hint = "https://files.example.gov"
    parameters = (
        *(
            parameter
            for number in range(1, HEADERS + 1)
            for parameter in (
                Parameter(f"header_{number}", f"Header {number}", help="The name of a header that this server wants, such as X-Api-Key."),
                Parameter(f"header_{number}_value", f"Value of header {number}", secret=True),
            )
        ),
        Parameter(
            "changes",
            "How changes are told",
            default="headers",
            help="headers: by ETag or Last-Modified. bytes: by the file itself, which is read each time, of a server whose headers are wrong.",
        ),
        Parameter(
            "test_path", "Path to try", help="What “Test connection” asks for, such as /budget.csv; without it, only whether there is a server."
        ),
    )

    def __init__(self, account: Account, door: Door):
        super().__init__(account, door)
        self._refuses_head = threading.Event()
        #: what was found of a template when it was described, for the fetch that follows
        self._found: dict[str, list[There]] = {}

    def test(self) -> str:
        """Ask for the path to try, else for the server's root, of which any answer will do: who lists no files may still give some."""
        host, path = urlsplit(self.web_address).netloc, self.account.parameters.get("test_path", "").strip()
        try:
            reply = self._look(self._url(path or "/"), _READING)
        except PermanentError as error:
            if path or not error.code.startswith("http-"):
                raise
            reply = None
        told = f"{host} answers" if reply is None or not path else f"{host} gives {path}"
        if self._headers and not path:
            return f"{told}; whether it takes our headers can't be tested without a path to try"
        return told

    # what is asked

    def _url(self, resource: str) -> str:
        resource = resource.strip()
        if not resource or "://" in resource:
            raise SetupError(
                f"{resource!r} is not a path of provider {self.account.slug}",
                code="bad-resource",
                next_step=f"Enter what follows {self.account.base_url} in the file's address, like /budget/2024.csv.",
            )
        return f"{self.web_address}/{resource.lstrip('/')}".replace(" ", "%20")

    @property
    def _headers(self) -> dict[str, str]:
        """The headers that this server wants. Raises SetupError for one without a value."""
        headers = {}
        for number in range(1, HEADERS + 1):
            name, value = self.account.parameters.get(f"header_{number}", "").strip(), self.account.secrets.get(f"header_{number}_value", "")
            if bool(name) != bool(value):
                raise SetupError(
                    f"header {number} of provider {self.account.slug} has {'no value' if name else 'a value, and no name'}",
                    code="header-incomplete",
                    next_step=f"Enter name and value of header {number}, or neither.",
                )
            if name:
                headers[name] = value
        return headers

    @property
    def _trusts_headers(self) -> bool:
        """Whether the server's headers tell changes. Raises SetupError for a way that there is not."""
        told = self.account.parameters.get("changes", "").strip().lower() or "headers"
        if told not in ("headers", "bytes"):
            raise SetupError(
                f"changes of provider {self.account.slug} are to be told by {told!r}, which is no way to do it",
                code="bad-parameter",
                next_step=f"Write headers or bytes there in provider {self.account.slug}.",
            )
        return told == "headers"

    def _look(self, url: str, manners: Manners, *, final: frozenset[str] = frozenset()) -> Reply:
        """What the server says of a file, by HEAD; where that is refused, or fails, by a GET whose body is left. Raises PipelineError.

        `final` are codes that are believed of a HEAD, too.
        """
        if not self._refuses_head.is_set():
            once = Manners(attempts=1, redirects=manners.redirects)
            try:
                return self.door.look(url, headers=self._headers, manners=once)
            except PipelineError as error:
                if error.code in final or not (isinstance(error, TransientError) or error.code.startswith("http-")):
                    raise
                if error.code in ("http-405", "http-501"):
                    self._refuses_head.set()
        return self.door.look(url, method="GET", headers=self._headers, manners=manners)

    def _mark(self, reply: Reply) -> tuple[str | None, datetime | None]:
        """(what changes when the file does, when it last did) by the headers of a file; None for what they do not say."""
        changed_at = _moment(reply.headers.get("Last-Modified", ""))
        if not self._trusts_headers:
            return None, None
        if etag := reply.headers.get("ETag", "").strip():
            return etag, changed_at
        now = _moment(reply.headers.get("Date", "")) or datetime.now(UTC)
        if changed_at is None or now - changed_at < SURE_AFTER:
            # made for this answer, or just now: the next change may bear the same stamp
            return None, None
        return f"{changed_at.isoformat()} {reply.headers.get('Content-Length', '')}".strip(), changed_at

    # a source

    def describe(self, resource: str) -> SourceState:
        """What the headers say of the file, or of all the files of a template. The version is None where they do not tell changes."""
        if is_template(resource):
            found = self._existing(resource)
            marks = [f"{there.label} {there.mark}" for there in found]
            version = _digest(marks) if found and all(there.mark for there in found) else None
            changed_at = max((there.changed_at for there in found if there.changed_at), default=None)
            self._found[resource] = found
            metadata: dict[str, Any] = {"labels": [there.label for there in found]}
        else:
            reply = self._look(self._url(resource), _READING)
            mark, changed_at = self._mark(reply)
            version = mark and _digest([mark])
            metadata = {name: reply.headers[name] for name in ("ETag", "Last-Modified", "Content-Type", "Content-Length") if name in reply.headers}
        return SourceState(title=file_name(resource, ""), columns=(), version=version, changed_at=changed_at, metadata=metadata)

    def fetch(self, resource: str, request: FetchRequest, *, rows: int | None, workdir: Path, progress: Progress) -> Iterator[FetchedFile]:
        """Yield the file, or each that exists of a template, oldest first, with its label as `date_from_filename`.

        Raises SetupError where none exists, DataError for a web page and whatever else can't be what is wanted.
        """
        if request.window_column or request.since_column:
            raise SetupError(
                f"the files of provider {self.account.slug} are read whole, and the pipeline asks for {request.window_column or 'what is new'}",
                code="no-windows",
                next_step="Take the window column and the watermark column out of the pipeline.",
            )
        form = _format(resource, request)
        # what a reader of its own reads, only that reader knows
        wanted = "" if request.options.get("custom_reader") else form
        helpers = _helpers(request, self.account)
        files: Sequence[There] = [There("", resource, None, None)]
        if request.options.get("multi"):
            files = self._all_of(resource)
        names = _names([there.resource for there in files], [there.label for there in files], form)
        number = 0
        for there, name in zip(files, names, strict=True):
            for file in self._pages(there, workdir / name, wanted, request) if form == "json" else [self._file(there, workdir / name, wanted)]:
                number += 1
                progress(number, None)
                yield file
        for role, helper in helpers.items():
            file = self._file(There("", helper, None, None), workdir / f"{role}-{file_name(helper, '')}", _ending(helper))
            yield replace(file, metadata={**file.metadata, "role": role})

    def _all_of(self, template: str) -> list[There]:
        """The files of a template that exist. Raises SetupError where there are none."""
        if not is_template(template):
            raise SetupError(
                f"{template} is to be read for each year, and its address has no yyyy",
                code="no-template",
                next_step="Write yyyy where the year stands in the address (qq for the quarter), or take `multi` out of the options.",
            )
        found = self._found.pop(template, None) or self._existing(template)
        if not found:
            raise SetupError(
                f"{urlsplit(self.web_address).netloc} has no {file_name(template, '')} of any year from {FIRST_YEAR} on",
                code="no-files",
                next_step="Open the address of one year in a browser, and compare it with the pipeline's.",
            )
        self.door.tell("info", f"{file_name(template, '')} exists of {', '.join(there.label for there in found)}")
        return found

    def _file(self, there: There, path: Path, wanted: str) -> FetchedFile:
        url = self._url(there.resource)
        try:
            # what it is, is looked at here: a web page instead of the file is no passing trouble
            got = self.door.download(url, path, headers=self._headers, expect="any", manners=_READING)
        except SetupError as error:
            if there.label and error.code in _GONE:
                raise TransientError(f"{url} was there a moment ago, and is not now", code="source-moved") from None
            raise
        host = urlsplit(url).netloc
        if not got.bytes:
            raise TransientError(f"{host} sent an empty {path.name}", code="empty-body")
        if what := _strange(path, wanted):
            kind = wanted.upper() or "a file"
            raise DataError(
                f"{host} answered 200 with {what} where {kind} was wanted: {path.name}",
                code="html-instead" if what.startswith("a web page") else f"not-{wanted}",
                next_step=f"Open {self.door.redact(url)} in a browser: the file may have moved, or want a log-in.",
            )
        headers = {name: got.headers[name] for name in ("ETag", "Last-Modified", "Content-Type") if name in got.headers}
        metadata = {"date_from_filename": there.label} if there.label else {}
        if not got.proven:
            self.door.tell("warning", f"{host} does not say how long {path.name} is: a file cut short would not be seen by its length")
        return FetchedFile(
            name=path.name, path=path, rows=None, bytes=got.bytes, sha256=got.sha256, origin=self.door.redact(url), metadata={**metadata, **headers}
        )

    def _pages(self, there: There, path: Path, wanted: str, request: FetchRequest) -> Iterator[FetchedFile]:
        """A file of JSON; of one that says that it is a page of OData, all pages. Raises TransientError where they have not the rows it counts."""
        options = request.options
        top = odata.TOP if options.get("odata") or str(options.get("custom_reader") or "").startswith(ODATA_READERS) else 0
        resource, seen = there.resource, 0
        for number in range(1, odata.MOST_PAGES + 1):
            asked = odata.page_of(resource, seen, top) if top else resource
            file = self._file(replace(there, resource=asked), path.with_stem(f"{path.stem}-{number:05d}") if number > 1 else path, wanted)
            page = odata.settle(file.path)
            yield file
            if page is None:
                return
            seen += page.rows
            is_full = bool(top) and page.count is None and page.rows == top
            if not (page.next_link or is_full or seen < (page.count or 0)):
                if page.count is not None and seen != page.count:
                    raise TransientError(f"{path.name} has {page.count:,} rows in all, and its pages gave {seen:,}", code="source-moved")
                return
            if not page.rows:
                raise DataError(
                    f"{path.name}: page {number:,} has no rows, and says that there are more",
                    code="empty-page",
                    next_step=f"Open {self.door.redact(file.origin)} in a browser, and ask whoever runs the server.",
                )
            if not top:
                resource = self._linked(there.resource, page.next_link) if page.next_link else odata.page_of(there.resource, seen)
        raise DataError(
            f"{path.name} has more than {odata.MOST_PAGES:,} pages", code="too-many-pages", next_step="Ask for less: a filter, or fewer columns."
        )

    def _linked(self, resource: str, link: str) -> str:
        """The path of a next page, told as a whole address or as a part of one. Raises SetupError for one at another host."""
        here = self._url(resource)
        there = urlsplit(urljoin(here, link))
        if there.netloc != urlsplit(here).netloc:
            raise SetupError(
                f"{urlsplit(here).netloc} names a next page at {there.netloc}",
                code="redirect",
                next_step=f"If that is the right place, enter it as the address of provider {self.account.slug}.",
            )
        base = urlsplit(self.web_address).path.rstrip("/")
        return there.path.removeprefix(base) + (f"?{there.query}" if there.query else "")

    # which files of a template exist

    def _existing(self, template: str) -> list[There]:
        """Ask for every year and quarter. A server that refuses all HEADs is asked by GET before it is believed to have none."""
        candidates = list(expansions(template, datetime.now(UTC).year + 1))
        found = self._probe(candidates)
        if not found and not self._refuses_head.is_set():
            self._refuses_head.set()
            found = self._probe(candidates)
        return found

    def _probe(self, candidates: Sequence[tuple[str, tuple[str, ...]]]) -> list[There]:
        pool = ThreadPoolExecutor(max_workers=PROBES, thread_name_prefix=f"probe-{self.account.slug}")
        try:
            return [there for there in pool.map(self._first_there, candidates) if there]
        finally:
            # one question that failed is the answer to all: the others need not be asked any more
            pool.shutdown(cancel_futures=True)

    def _first_there(self, candidate: tuple[str, tuple[str, ...]]) -> There | None:
        """The first of a label's addresses that exists; None where the server says that none does. Raises PipelineError for any other answer."""
        label, resources = candidate
        for resource in resources:
            try:
                reply = self._look(self._url(resource), _PROBING, final=_GONE | _ELSEWHERE)
            except PipelineError as error:
                if error.code in _GONE | _ELSEWHERE:
                    continue
                raise
            if reply.status == 200:
                return There(label, resource, *self._mark(reply))
        return None


# addresses and names


def is_template(resource: str) -> bool:
    """Whether an address stands for one a year or a quarter."""
    return "yyyy" in resource or "qq" in resource


def expansions(template: str, last_year: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(label, addresses that it may have) of each year, or quarter, from FIRST_YEAR on: ("2024-3", (…q3…, …Q3…)). Oldest first. Pure."""
    years = range(FIRST_YEAR, last_year + 1) if "yyyy" in template else (None,)
    for year in years:
        address = template if year is None else template.replace("yyyy", str(year))
        if "qq" not in template:
            yield str(year), (address,)
            continue
        for quarter in range(1, 5):
            label = str(quarter) if year is None else f"{year}-{quarter}"
            yield label, (address.replace("qq", f"q{quarter}"), address.replace("qq", f"Q{quarter}"))


def file_name(resource: str, form: str) -> str:
    """A plain name for what lies at an address: its last part, with the ending of its format where it has none of its own. Pure."""
    last = unquote(urlsplit(resource).path.rstrip("/").rpartition("/")[2])
    plain = re.sub(r"[^\w.()-]+", "_", last).strip("._") or "file"
    path = PurePosixPath(plain)
    stem, ending = (path.stem, path.suffix) if re.fullmatch(r"\.[A-Za-z]\w{1,7}", path.suffix) else (plain, f".{form}" if form else "")
    return f"{stem[:100]}{ending}"


def _names(resources: Sequence[str], labels: Sequence[str], form: str) -> list[str]:
    """A name each: that of its file, behind its label where those of two would be the same, as of years that are folders."""
    names = [file_name(resource, form) for resource in resources]
    if len({name.lower() for name in names}) == len(names):
        return names
    return [f"{label}-{name}" for label, name in zip(labels, names, strict=True)]


def _ending(resource: str) -> str:
    return PurePosixPath(urlsplit(resource).path).suffix.lower().removeprefix(".")


def _format(resource: str, request: FetchRequest) -> str:
    """The format that a file should have: what the pipeline says, else what its address ends with."""
    return next((told for told in (str(request.options.get("published_format") or ""), _ending(resource), request.format) if told in FORMATS), "")


def _helpers(request: FetchRequest, account: Account) -> dict[str, str]:
    """Role → address of the further files. Raises SetupError."""
    told = request.options.get("helpers") or {}
    if not isinstance(told, dict) or not all(isinstance(one, str) and one for pair in told.items() for one in pair):
        raise bad_option(account, "helpers", 'roles and paths, as in {"joined": "/green-roofs.xlsx"}')
    return told


# what came


def _strange(path: Path, wanted: str) -> str:
    """What a file is that it should not be, in words; "" for one that may be what is wanted."""
    with path.open("rb") as file:
        start = file.read(OPENING)
    opening = start.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")[:512].lower()
    what = next((words for mark, words in _BEGINNINGS if opening.startswith(mark)), "")
    may_be = opening.startswith(b"pk\x03\x04") if wanted == "xlsx" else what not in _NEVER.get(wanted, {"a web page"})
    if may_be:
        return ""
    what = what or "text"
    title = re.search(rb"<title[^>]*>([^<]{1,200})", start, re.IGNORECASE) if what == "a web page" else None
    shown = " ".join(title[1].decode("utf-8", "replace").split())[:80] if title else ""
    return f"{what} (“{shown}”)" if shown else what


def _moment(value: str) -> datetime | None:
    """A date of HTTP, in UTC; None for none."""
    with suppress(ValueError, TypeError, IndexError):
        told = parsedate_to_datetime(value)
        return told.astimezone(UTC) if told.tzinfo else told.replace(tzinfo=UTC)
    return None


def _digest(marks: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(marks).encode()).hexdigest()[:32]
