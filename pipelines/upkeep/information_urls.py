"""Addresses for more information: each dataset names one, and each is asked whether anybody is still at home."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import urljoin, urlsplit

import requests
from django.conf import settings

from catalog.models import Dataset
from pipelines.connectors.base import Parameter
from pipelines.connectors.http import REDIRECTS, Door, Manners
from pipelines.errors import PipelineError, SetupError
from pipelines.models import UpkeepJob, UpkeepRun
from pipelines.upkeep import portals
from pipelines.upkeep.jobs import Job, Note
from pipelines.upkeep.portals import Faults, plural

ANSWER_SECONDS = 20
MOST_AT_ONCE = 16
WELL, REDIRECTED, GONE, CLIENT, SERVER, SILENT, UNASKED = (
    "well", "redirected", "not found", "client error", "server error", "no connection", "not an address that can be asked",
)  # fmt: skip
#: In this order they are told.
BAD = (GONE, SERVER, SILENT, CLIENT, REDIRECTED, UNASKED)
ONCE = Manners(attempts=1, redirects="none")


@dataclass(frozen=True)
class Answer:
    """What became of asking an address: a word of these, and what was said."""

    outcome: str
    said: str = ""


class _Door(Door):
    """The door, which says of a redirect where it would have led."""

    def _refuse(self, response: requests.Response) -> NoReturn:
        if response.status_code in REDIRECTS:
            target = urljoin(response.url, response.headers.get("Location", ""))
            raise self._failure(SetupError, f"{response.status_code}: it is now {target}", code=f"http-{response.status_code}")
        super()._refuse(response)


class InformationUrls(Job):
    """It asks by HEAD, and by GET where that brings nothing good: some servers only know the latter. No body is read."""

    kind = "information-urls"
    label = "Addresses for more information"
    about = "Asks the address that each dataset names for more information, and tells which are gone, moved or silent."
    can_dry = True
    options = (
        portals.PORTAL_OR_OURS,
        Parameter("allow", "Hosts that may refuse", help="Host names, with commas: what they answer with 4xx, but 404, is taken for well."),
        Parameter("parallel", "Asked at once", default="4", help=f"Up to {MOST_AT_ONCE}."),
        portals.REPEAT,
    )

    def run(self, job: UpkeepJob, run: UpkeepRun, note: Note) -> str:
        faults, parallel = Faults(), max(1, min(self.number(job, "parallel"), MOST_AT_ONCE))
        allow = frozenset(host.lower() for host in self.words(job, "allow"))
        named: dict[str, list[str]] = defaultdict(list)
        for dataset, address in self._named(job, faults, note):
            named[address].append(dataset)
        with _Door(settings.OUTBOUND_ALLOW, read_timeout=ANSWER_SECONDS, deadline=2 * ANSWER_SECONDS, owner=f"the job {job.title}") as door:
            answers = dict(_asked(named, lambda address: answer(door, address, allow), parallel, note))
        bad = sorted(
            (
                (BAD.index(one.outcome), dataset, address, one)
                for address, one in answers.items()
                if one.outcome != WELL
                for dataset in named[address]
            ),
            key=lambda line: line[:3],
        )
        rows = [(dataset, address, one.outcome, one.said) for _, dataset, address, one in bad]
        note.findings(
            ("dataset", "address", "outcome", "what was said"), [*rows, *((name, "", "could not be read", why) for name, why in faults.rows)]
        )
        note.notice(told(rows, len(answers), faults), trouble=bool(rows or faults.rows))
        counts = ", ".join(f"{number:,} {outcome}" for outcome in BAD if (number := sum(row[2] == outcome for row in rows)))
        return f"{plural(len(answers), 'address', 'addresses')} asked: {counts or 'all are well'}."

    def _named(self, job: UpkeepJob, faults: Faults, note: Note) -> Iterator[tuple[str, str]]:
        """(dataset, its address), of those that name one."""
        if slug := self.word(job, "portal"):
            with portals.asked(job, slug, note) as portal:
                for package in portal.packages():
                    note.walk()
                    with faults.of(str(package.get("name", "?"))):
                        if address := str(package.get("information_url") or "").strip():
                            yield package["name"], address
            return
        for slug, address in Dataset.objects.filter(is_retired=False).exclude(information_url="").values_list("slug", "information_url"):
            yield slug, address.strip()


def _asked(addresses: Iterable[str], ask: Callable[[str], Answer], parallel: int, note: Note) -> Iterator[tuple[str, Answer]]:
    """(address, answer) as they come, at most so many at once; each is a sign of life."""
    with ThreadPoolExecutor(parallel, thread_name_prefix="information-url") as pool:
        asked = {pool.submit(ask, address): address for address in addresses}
        try:
            for number, future in enumerate(as_completed(asked), start=1):
                note.walk(f"{number:,} of {plural(len(asked), 'address', 'addresses')} asked.")
                yield asked[future], future.result()
        finally:
            # a job that was given up asks nobody any more
            pool.shutdown(wait=True, cancel_futures=True)


def answer(door: Door, address: str, allow: frozenset[str] = frozenset()) -> Answer:
    """What an address answers, in a word. Raises nothing that the address causes."""
    found = _looked(door, "HEAD", address)
    if found.outcome not in (WELL, REDIRECTED, UNASKED):
        found = _looked(door, "GET", address)
    return Answer(WELL, found.said) if found.outcome == CLIENT and (urlsplit(address).hostname or "") in allow else found


def _looked(door: Door, method: str, address: str) -> Answer:
    try:
        door.look(address, method=method, manners=ONCE)
    except PipelineError as error:
        return Answer(_outcome(error.code), error.message)
    return Answer(WELL)


def _outcome(code: str) -> str:
    status = int(code.removeprefix("http-")) if code.startswith("http-") else 0
    if not status:
        return UNASKED if code in ("bad-address", "plain-http", "address-refused") else SILENT
    if status < 300:
        return WELL
    if status < 400:
        return REDIRECTED
    return GONE if status in (404, 410) else CLIENT if status < 500 else SERVER


def told(rows: list[tuple[str, str, str, str]], asked: int, faults: Faults) -> str:
    """The notice, in Slack's words: by outcome, the worst first."""
    if not (rows or faults.rows):
        return f"{plural(asked, 'address', 'addresses')} for more information asked: all are well."
    lines = []
    for outcome in BAD:
        if some := [row for row in rows if row[2] == outcome]:
            lines.append(f"*{outcome}: {len(some):,}*")
            lines += [f"{number}. _{dataset}_: {address} ({said})" for number, (dataset, address, _, said) in enumerate(some, start=1)]
    return "\n".join([*lines, *(["Could not be read:", *faults.lines] if faults.rows else [])])
