"""Times of remote files: a resource that is a link says that it last changed when the file behind the link did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from django.conf import settings

from pipelines.connectors.base import Parameter
from pipelines.connectors.ckan import Ckan
from pipelines.connectors.http import Door, Manners
from pipelines.errors import DataError, PipelineError, SetupError, TransientError
from pipelines.models import UpkeepJob, UpkeepRun
from pipelines.upkeep import portals
from pipelines.upkeep.jobs import Job, Note
from pipelines.upkeep.portals import plural

SYNCED, ERROR, UNCHANGED, WOULD = "synced", "error", "unchanged", "would be synced"
#: People paste addresses from documents, with signs that nobody sees.
UNSEEN = "\u200b\ufeff\u00a0"
ANSWER_SECONDS = 60
#: A file may be behind a redirect; a server that says no to HEAD may mean only that.
READING = Manners(redirects="all")
ONCE = Manners(attempts=1, redirects="all")


@dataclass(frozen=True)
class Remote:
    """What a server says of a file before its body: when it last changed, to the second, and how long it is (None: it does not say)."""

    modified: datetime
    size: int | None


@dataclass(frozen=True)
class Result:
    """What became of one file; `resource` is "" where it was not found."""

    package: str
    resource: str
    resource_id: str
    url: str
    outcome: str
    modified: datetime | None = None
    why: str = ""


class RemoteFileTimes(Job):
    """A file that can't be asked is told of; the others of its package go on."""

    kind = "remote-file-times"
    label = "Times of remote files"
    about = "Asks each remote file when it last changed, and lets its resource on a CKAN portal say the same."
    can_dry = True
    options = (
        portals.PORTAL,
        Parameter("files", "Files", required=True, help='Addresses by package: {"shelters": ["https://…/a.xlsx", "https://…/b.zip"]}.'),
        portals.REPEAT,
    )

    def has_work(self, job: UpkeepJob) -> bool:
        return bool(job.options.get("files"))

    def run(self, job: UpkeepJob, run: UpkeepRun, note: Note) -> str:
        files = files_of(job)
        results: list[Result] = []
        with portals.asked(job, self.word(job, "portal"), note) as portal, door(job) as outside:
            packages = {one["name"]: one for one in portal.packages() if one.get("name") in files}
            for name, urls in files.items():
                for url in urls:
                    note.walk(f"{len(results):,} files asked so far.")
                    results.append(_synced(portal, outside, packages.get(name), name, url, is_dry=note.is_dry))
        rows = [(one.package, one.resource, one.resource_id, one.url, one.outcome, one.modified and _stamp(one.modified), one.why) for one in results]
        note.findings(("package", "resource", "id", "file", "outcome", "last modified", "why"), rows)
        counts = {outcome: sum(one.outcome == outcome for one in results) for outcome in (SYNCED, WOULD, ERROR, UNCHANGED)}
        note.notice(told(results), trouble=bool(counts[ERROR]), is_news=bool(counts[SYNCED]))
        return (
            f"{plural(len(results), 'file')} asked: {', '.join(f'{number:,} {outcome}' for outcome, number in counts.items() if number) or 'none'}."
        )


def files_of(job: UpkeepJob) -> dict[str, list[str]]:
    """Addresses by package, from {package: [address]} or [{package_id, files}]. Raises SetupError."""
    given = job.options.get("files")
    if isinstance(given, list):
        given = {one.get("package_id"): one.get("files") for one in given if isinstance(one, dict)}
    if not isinstance(given, dict) or not given or not all(isinstance(name, str) and isinstance(urls, list) for name, urls in given.items()):
        raise SetupError(
            f"{job}: which files are meant is not said.",
            code="bad-option",
            next_step='Write its option files like {"shelters": ["https://city.gov/a.xlsx"]}.',
        )
    # in the order of their names: JSON in the database has none of its own
    return {name: [plain(url) for url in given[name]] for name in sorted(given)}


def plain(url: Any) -> str:
    """An address without what nobody sees in it."""
    return str(url).translate(dict.fromkeys(map(ord, UNSEEN))).strip()


def door(job: UpkeepJob) -> Door:
    """The way to the files."""
    return Door(settings.OUTBOUND_ALLOW, read_timeout=ANSWER_SECONDS, deadline=1800, attempts=2, owner=f"the job {job.title}")


def looked(outside: Door, url: str) -> Remote:
    """What is said of a file, by HEAD, or by a GET whose body is left where that is refused. Raises PipelineError."""
    try:
        reply = outside.look(url, manners=ONCE)
    except PipelineError as error:
        if not (isinstance(error, TransientError) or error.code.startswith("http-")) or error.code in ("http-404", "http-410"):
            raise
        reply = outside.look(url, method="GET", manners=READING)
    length = reply.headers.get("Content-Length", "")
    return Remote(modified_at(reply.headers, url), int(length) if length.isdecimal() else None)


def modified_at(headers: Mapping[str, str], url: str) -> datetime:
    """When a file last changed, by its headers. Raises DataError."""
    said = headers.get("Last-Modified", "")
    try:
        found = parsedate_to_datetime(said)
    except ValueError:
        raise DataError(f"it is not said when {url} last changed: its Last-Modified is {said or 'missing'}", code="no-last-modified") from None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def _synced(portal: Ckan, outside: Door, package: Mapping[str, Any] | None, name: str, url: str, *, is_dry: bool) -> Result:
    """Let the resource of this address say when its file last changed."""
    if package is None:
        return Result(name, "", "", url, ERROR, why="the portal has no such package")
    found = [one for one in package["resources"] if plain(one.get("url", "")) == url]
    if len(found) != 1:
        return Result(name, "", "", url, ERROR, why=f"{plural(len(found), 'resource')} of it {'has' if len(found) == 1 else 'have'} this address")
    [resource] = found
    who = (name, str(resource.get("name") or ""), resource["id"], url)
    try:
        modified = looked(outside, url).modified
        if portals.changed_at(resource) == modified:
            return Result(*who, UNCHANGED, modified)
        if is_dry:
            return Result(*who, WOULD, modified)
        portal.action("resource_patch", id=resource["id"], last_modified=_stamp(modified))
    except PipelineError as error:
        return Result(*who, ERROR, why=error.message)
    except ValueError as error:
        return Result(*who, ERROR, why=f"the portal's date can't be read: {error}")
    return Result(*who, SYNCED, modified)


def _stamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}"


def told(results: list[Result]) -> str:
    """The notice, in Slack's words: what was synced and what went wrong by name, of the rest only how many."""
    return "\n".join(["", *_lines(results)])


def _lines(results: list[Result]) -> Iterator[str]:
    for outcome in (SYNCED, WOULD, ERROR, UNCHANGED):
        if some := [one for one in results if one.outcome == outcome]:
            yield f"*{outcome} - packages: {len({one.package for one in some})}\tresources: {len(some)}*"
            for number, one in enumerate(some, start=1) if outcome != UNCHANGED else ():
                yield (
                    f"{number}. {one.package} ({one.why})"
                    if outcome == ERROR
                    else f"{number}. _{one.resource}_: `{one.modified and _stamp(one.modified)}`"
                )
