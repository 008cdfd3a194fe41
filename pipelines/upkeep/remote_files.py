"""Remote files: brought to a CKAN portal where they are newer there than here, as uploads or as links, one a year where the address has `yyyy`."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from django.utils import timezone

from pipelines.connectors import web_file
from pipelines.connectors.base import Parameter
from pipelines.connectors.ckan import Ckan
from pipelines.connectors.http import MIB, REDIRECTS, Door, Manners
from pipelines.errors import DataError, PipelineError, SetupError
from pipelines.faults import faultpoint
from pipelines.models import UpkeepJob, UpkeepRun
from pipelines.upkeep import portals
from pipelines.upkeep.jobs import Job, Note
from pipelines.upkeep.portals import plural
from pipelines.upkeep.remote_file_times import ERROR, READING, UNCHANGED, Remote, door, looked, modified_at, plain

UPLOADED, WOULD = "uploaded", "would be uploaded"
#: What a portal's page says fills the resource.
EXTRACT_JOB = "Open Data Ops: "
#: While it is asked whether a year's file exists, a redirect mostly leads to a page that says that it does not.
_NOT_THERE = frozenset({"http-404", "http-410", *(f"http-{status}" for status in REDIRECTS)})
_PROBING = Manners(attempts=2, redirects="none", answers=_NOT_THERE)


@dataclass(frozen=True)
class Wish:
    """A file that a resource of a package is to hold, or to lead to (`is_link`). `yyyy` in the address stands for each year that exists."""

    package: str
    name: str
    url: str
    format: str
    is_link: bool = False

    @property
    def is_template(self) -> bool:
        return web_file.is_template(self.url)

    def feeds(self, package: str, resource: str) -> bool:
        """Whether it fills that resource."""
        if self.package != package:
            return False
        pattern = re.escape(_file_name(self.url)).replace("yyyy", r"\d{4}").replace("qq", "[qQ][1-4]")
        return bool(re.fullmatch(pattern, resource)) if self.is_template else self.name == resource


@dataclass(frozen=True)
class Result:
    """What became of one file."""

    package: str
    resource: str
    resource_id: str
    url: str
    outcome: str
    modified: datetime | None = None
    bytes: int | None = None
    why: str = ""

    @property
    def size_mb(self) -> float | None:
        return None if self.bytes is None else round(self.bytes / MIB, 1)


class RemoteFiles(Job):
    """The resource keeps its id. Where it is stopped between the file and its time, the next run brings the file once more."""

    kind = "remote-files"
    label = "Remote files"
    about = "Brings files from elsewhere to a CKAN portal when they changed there, and says so in the resource's time."
    can_dry = True
    options = (
        portals.PORTAL,
        Parameter(
            "files",
            "Files",
            required=True,
            help='By package and resource: {"shelters": {"Beds": {"format": "XLSX", "url": "https://…", "link": false}}}.',
        ),
        portals.REPEAT,
    )

    def has_work(self, job: UpkeepJob) -> bool:
        return bool(job.options.get("files"))

    def run(self, job: UpkeepJob, run: UpkeepRun, note: Note) -> str:
        wishes = wishes_of(job)
        named = {one.package for one in wishes}
        results: list[Result] = []
        with (
            portals.asked(job, self.word(job, "portal"), note) as portal,
            door(job) as outside,
            tempfile.TemporaryDirectory(prefix="remote-") as folder,
        ):
            packages = {one["name"]: one for one in portal.packages() if one.get("name") in named}
            bringer = _Bringer(portal, outside, Path(folder), f"{EXTRACT_JOB}{job.title}", note)
            for wish in wishes:
                note(f"{len(results):,} files asked so far; now {wish.package}, {wish.name}.")
                results += bringer.brought(packages.get(wish.package), wish)
        rows = [(one.package, one.resource, one.resource_id, one.url, one.outcome, _when(one), one.size_mb, one.why) for one in results]
        note.findings(("package_name", "resource_name", "resource_id", "file", "result", "last_modified", "size_mb", "why"), rows)
        counts = {outcome: sum(one.outcome == outcome for one in results) for outcome in (UPLOADED, WOULD, ERROR, UNCHANGED)}
        note.notice(told(results), trouble=bool(counts[ERROR]), is_news=bool(counts[UPLOADED]))
        return (
            f"{plural(len(results), 'file')} asked: {', '.join(f'{number:,} {outcome}' for outcome, number in counts.items() if number) or 'none'}."
        )


def wishes_of(job: UpkeepJob) -> list[Wish]:
    """The files that a job is to bring. Raises SetupError naming the one that is written wrongly."""
    given = job.options.get("files")
    if not isinstance(given, dict) or not given:
        raise _bad(job, "which files are meant is not said")
    wishes = []
    for package, files in given.items():
        for name, told in (files if isinstance(files, dict) else {"": None}).items():
            if not isinstance(told, dict) or not str(told.get("url") or "").strip() or not told.get("format"):
                raise _bad(job, f"{package}, {name or 'its files'}: url and format are needed")
            wishes.append(Wish(package, name, plain(told["url"]), str(told["format"]), portals.is_true(told.get("link"))))
    # JSON in the database has no order of its own
    return sorted(wishes, key=lambda one: (one.package, one.name))


def _bad(job: UpkeepJob, words: str) -> SetupError:
    return SetupError(
        f"{job}: {words}.",
        code="bad-option",
        next_step='Write its option files like {"shelters": {"Beds": {"format": "XLSX", "url": "https://city.gov/beds.xlsx"}}}.',
    )


class _Bringer:
    """Brings one file after the other; what goes wrong with one is its result."""

    def __init__(self, portal: Ckan, outside: Door, folder: Path, extract_job: str, note: Note):
        self.portal, self.outside, self.folder, self.extract_job, self.note = portal, outside, folder, extract_job, note

    def brought(self, package: Mapping[str, Any] | None, wish: Wish) -> Iterator[Result]:
        """Yield what became of the file, or of each that exists of a template."""
        if package is None:
            yield Result(wish.package, wish.name, "", wish.url, ERROR, why="the portal has no such package")
            return
        try:
            files = list(self._years(wish)) if wish.is_template else [(wish.name, wish.url)]
        except PipelineError as error:
            yield Result(wish.package, wish.name, "", wish.url, ERROR, why=error.message)
            return
        if not files:
            yield Result(wish.package, wish.name, "", wish.url, ERROR, why="there is no file of any year")
        for name, url in files:
            try:
                yield self._one(package, wish, name, url)
            except PipelineError as error:
                yield Result(wish.package, name, "", url, ERROR, why=error.message)
            except ValueError as error:
                yield Result(wish.package, name, "", url, ERROR, why=f"the portal's date can't be read: {error}")

    def _years(self, wish: Wish) -> Iterator[tuple[str, str]]:
        """(name of the resource, address) of each year that exists: the resource is called as the file. Raises PipelineError."""
        for _, addresses in web_file.expansions(wish.url, timezone.now().year + 1):
            self.note.walk()
            for url in addresses:
                try:
                    self.outside.look(url, manners=_PROBING)
                except PipelineError as error:
                    if error.code not in _NOT_THERE:
                        raise
                else:
                    yield _file_name(url), url
                    break

    def _one(self, package: Mapping[str, Any], wish: Wish, name: str, url: str) -> Result:
        """Bring one file, if it changed. Raises PipelineError, ValueError."""
        there = [one for one in package["resources"] if one.get("name") == name]
        if len(there) > 1:
            raise DataError(f"{len(there)} resources of the package have this name", code="not-one-resource")
        resource = there[0] if there else None
        remote = looked(self.outside, url)
        who = (wish.package, name, resource["id"] if resource else "", url)
        is_elsewhere = wish.is_link and resource is not None and resource.get("url") != url
        if resource and portals.changed_at(resource) == remote.modified and not is_elsewhere:
            return Result(*who, UNCHANGED, remote.modified, remote.size)
        if self.note.is_dry:
            return Result(*who, WOULD, remote.modified, remote.size)
        sent, remote = (
            self._linked(package, wish, name, url, resource, remote) if wish.is_link else self._uploaded(package, wish, name, url, resource)
        )
        faultpoint("remote-file.sent")
        # CKAN dates what it is sent by its own clock
        self.portal.action("resource_patch", id=sent["id"], last_modified=f"{remote.modified:%Y-%m-%dT%H:%M:%S}")
        return Result(wish.package, name, sent["id"], url, UPLOADED, remote.modified, remote.size)

    def _linked(
        self, package: Mapping[str, Any], wish: Wish, name: str, url: str, resource: Mapping[str, Any] | None, remote: Remote
    ) -> tuple[Mapping[str, Any], Remote]:
        place = {"url": url} | ({"size": remote.size} if remote.size is not None else {})
        if resource:
            return self.portal.action("resource_patch", id=resource["id"], **place), remote
        return self.portal.action("resource_create", **self._new(package, wish, name), **place), remote

    def _uploaded(
        self, package: Mapping[str, Any], wish: Wish, name: str, url: str, resource: Mapping[str, Any] | None
    ) -> tuple[Mapping[str, Any], Remote]:
        path = self.folder / "file"
        try:
            got = self.outside.download(url, path, expect="any", manners=READING, on_bytes=lambda size: self.note.walk())
            if got.headers.get("Content-Type", "").lower().startswith("text/html") and wish.format.lower() not in ("html", "htm"):
                raise DataError(f"a web page came in place of {_file_name(url)}", code="html-instead")
            # of the bytes that came, not of those that were there when it was asked before
            remote = Remote(modified_at(got.headers, url), got.bytes)
            if resource:
                return self.portal.upload("resource_patch", path, _file_name(url), id=resource["id"]), remote
            return self.portal.upload("resource_create", path, _file_name(url), **self._new(package, wish, name)), remote
        finally:
            path.unlink(missing_ok=True)

    def _new(self, package: Mapping[str, Any], wish: Wish, name: str) -> dict[str, Any]:
        return {"package_id": package["id"], "name": name, "format": wish.format, "is_preview": False, "extract_job": self.extract_job}


def _file_name(url: str) -> str:
    return unquote(urlsplit(url).path).rpartition("/")[2]


def _when(one: Result) -> str | None:
    return one.modified and f"{one.modified.astimezone(UTC):%Y-%m-%d %H:%M}"


def told(results: list[Result]) -> str:
    """The notice, in Slack's words: what was uploaded and what went wrong; of the rest only how many."""
    lines = [""]
    for outcome in (UPLOADED, WOULD, ERROR):
        if some := [one for one in results if one.outcome == outcome]:
            lines.append(f"*{outcome}*")
            for number, one in enumerate(some, start=1):
                size = "" if one.size_mb is None else f" | {one.size_mb} MB"
                lines.append(f"{number}. {one.package} ({one.resource}: {one.why})" if outcome == ERROR else f"{one.resource}: `{_when(one)}`{size}")
    if not lines[1:]:
        lines.append(f"{plural(len(results), 'file')} unchanged")
    return "\n".join(lines)
