"""A small city, made with the ORM: every state that a page must show, and three people. For everyone's tests and screenshots.

`build()` is small (some hundred blocks); `build(much=True)` adds dozens of pipelines and every run of four weeks.
All moments are relative to `now`; nothing here touches a queue, a worker, a portal or a file, except `real_file`.
"""

from __future__ import annotations

import hashlib
import io
import random
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.core.management.color import no_style
from django.db import connection
from django.db.models import Model

from catalog import audit, lake
from catalog.models import CatalogEntry, Dataset, DatasetColumn, Layer
from opendata_ops import accounts
from pipelines import clock, planner
from pipelines.models import ImportLog, LogLine, Pipeline, Provider, Pulse, RejectedRow, Run, RunState, ScheduleBlock, Stage, State, Trigger

PASSWORD = "riverton rocks"
CHICAGO = "America/Chicago"
ALL_STAGES = [stage.value for stage in Stage if stage != Stage.AGGREGATE]
#: A Saturday morning, three weeks after the clocks went back: the day of 25 hours is on the grid.
SATURDAY = datetime(2026, 11, 21, 12, 42, tzinfo=UTC)
_SECONDS = {"extract": 41, "standardize": 6, "enrich": 9, "load": 4, "publish": 12}


@dataclass
class World:
    """The things that tests speak of, by name."""

    now: datetime
    viewer: User
    operator: User
    steward: User
    pipelines: dict[str, Pipeline] = field(default_factory=dict)
    blocks: dict[str, ScheduleBlock] = field(default_factory=dict)


@cache
def _hashed() -> str:
    """PASSWORD as it is stored: a second of work, done once."""
    return make_password(PASSWORD)


def people() -> tuple[User, User, User]:
    """A viewer, an operator and a steward, with PASSWORD."""
    made = []
    for role in accounts.ROLES:
        person = User.objects.create(username=role, password=_hashed())
        accounts.add_to(person, role)
        made.append(person)
    return tuple(made)


def provider(slug: str, title: str, kind: str = "socrata", **more) -> Provider:
    more = {"base_url": f"https://{slug}.example", "time_zone": CHICAGO, **more}
    return Provider.objects.create(slug=slug, title=title, kind=kind, **more)


def dataset(slug: str, title: str, **more) -> Dataset:
    more = {"department": "Transportation", "steward": "R. Ortiz", "steward_email": "r.ortiz@riverton.example", "licence": "CC0 1.0", **more}
    return Dataset.objects.create(slug=slug, title=title, **more)


def pipeline(slug: str, title: str, source: Provider, feeds: Dataset, now: datetime, **more) -> Pipeline:
    """A pipeline that loads and publishes, owed since two months before `now`."""
    more = {
        "resource": "abcd-1234",
        "table": slug.replace("-", "_"),
        "key": ["id"],
        "window_column": "updated_at",
        "time_zone": CHICAGO,
        "starts_on": (now - timedelta(days=60)).date(),
        "portal": Provider.objects.filter(slug="portal").first(),
        "portal_resource": hashlib.sha256(slug.encode()).hexdigest()[:8],
        **more,
    }
    made = Pipeline.objects.create(slug=slug, title=title, provider=source, dataset=feeds, **more)
    Pipeline.objects.filter(pk=made.pk).update(created_at=now - timedelta(days=60))
    made.refresh_from_db()
    return made


def block(one: Pipeline, window: tuple[datetime, datetime], state: str = State.DONE, rows: int | None = None, **more) -> ScheduleBlock:
    """An unsaved block in a state that the database accepts."""
    due = planner.due_at(one, *window)
    last = more.pop("at", due + timedelta(minutes=3))
    values = {
        "stage": one.stages[-1] if state == State.DONE else one.stages[0],
        "stages": one.stages,
        "due_at": due,
        "created_at": due - timedelta(minutes=1),
        "changed_at": last,
        "rows": rows,
    }
    if state == State.DONE:
        values |= {"finished_at": last, "fence": 3}
    if state == State.FAILED:
        values |= {"finished_at": last, "attempts": one.max_attempts, "fence": one.max_attempts}
    if state == State.RUNNING:
        values |= {"holder": "ops-1:4711", "lease_until": datetime.now(UTC) + timedelta(days=365), "fence": 1, "attempts": 1}
    return ScheduleBlock(pipeline=one, starts_at=window[0], ends_at=window[1], state=state, **{**values, **more})


def runs_of(one: ScheduleBlock, rejected: int = 0, duplicates: int = 0) -> list[Run]:
    """Unsaved runs that explain a finished block: one a stage, rows conserved, the end at the block's `finished_at`."""
    rows = one.rows or 0
    runs, ends = [], one.finished_at
    for fence, stage in reversed(list(enumerate(one.pipeline.stages, start=1))):
        starts = ends - timedelta(seconds=_SECONDS[stage] * (0.6 + (one.starts_at.hour + fence) % 5 / 5))
        counts = {"rows_in": rows, "rows_out": rows}
        if stage == "load":
            good = max(rows - rejected - duplicates, 0)
            counts = {
                "rows_in": rows, "rows_out": good, "inserted": good, "rejected": rows and rejected, "duplicates": rows and duplicates,
            }  # fmt: skip
        if stage == "publish":
            good = max(rows - rejected - duplicates, 0)
            counts = {"rows_in": good, "rows_out": good, "published": good}
        runs.append(
            Run(
                block=one, stage=stage, state=RunState.DONE, attempt=1, fence=fence, trigger=one.trigger, asked_by=one.asked_by, holder="ops-1:4711",
                queued_at=starts - timedelta(seconds=2), started_at=starts, finished_at=ends, beat_at=ends, bytes=rows * 240, **counts,
            )
        )  # fmt: skip
        ends = starts - timedelta(seconds=1)
    return runs[::-1]


def failed_run(one: ScheduleBlock, message: str, code: str, stage: str = "extract", state: str = RunState.FAILED, fence: int = 1, **more) -> Run:
    return Run(
        block=one, stage=stage, state=state, attempt=fence, fence=fence, trigger=Trigger.SCHEDULE, asked_by="schedule", holder="ops-1:4711",
        started_at=one.changed_at - timedelta(seconds=30 * (6 - min(fence, 5))),
        finished_at=one.changed_at - timedelta(seconds=25 * (6 - min(fence, 5))),
        message=message, error_code=code, **more,
    )  # fmt: skip


def windows(one: Pipeline, now: datetime, days: int) -> list[tuple[datetime, datetime]]:
    """The windows of the last days that are due by `now`."""
    owed = planner.owed_windows(one, now - timedelta(days=days), now)
    return [window for window in owed if planner.due_at(one, *window) <= now]


def local(day: date, hour: int) -> datetime:
    return clock.local_instant(day, time(hour), CHICAGO)


def build(now: datetime | None = None, *, much: bool = False, real_file: bool = False, nothing: bool = False) -> World:
    """The city of Riverton at `now` (the real time when None).

    `nothing`: only the people. `real_file`: the newest 311 file lies in the lake of the settings.
    A city of the same moment and size is made once a process and copied in after that: thousands of rows, for hundreds of tests.
    """
    now = now or datetime.now(UTC)
    world = World(now, *people())
    if nothing:
        return world
    if real_file:
        _make(world, much, real_file)
    elif (kept := _kept.get((now, much))) is None:
        empty = not Provider.objects.exists()  # rows of the test's own may not enter the copy
        _make(world, much, real_file)
        if empty:
            _kept[now, much] = _Copy.of(world)
    else:
        kept.into(world)
    audit.write(
        audit.Actor.of(world.operator),
        "run",
        kind="block",
        target=str(world.blocks["requests"]),
        reason="vendor re-sent the file",
        result="Asked to run.",
    )
    return world


def _make(world: World, much: bool, real_file: bool) -> None:
    now = world.now
    provider("portal", "Riverton open data", base_url="https://data.riverton.example")
    _machinery(now)
    for build_part in (_requests, _scooters, _permits, _pets, _trees, _inspections, _radar, _cameras, _shelters, _notes):
        build_part(world, much)
    if much:
        _crowd(world)
    _requests_story(world, real_file)


# in the order in which their foreign keys allow
_TABLES = (Provider, Dataset, DatasetColumn, Pipeline, ScheduleBlock, Run, LogLine, CatalogEntry, ImportLog, RejectedRow, Pulse)
_kept: dict[tuple[datetime, bool], _Copy] = {}


@dataclass
class _Copy:
    """The rows of a city as COPY wrote them, by table, and the keys of the things that tests name."""

    rows: dict[type[Model], bytes]
    pipelines: dict[str, int]
    blocks: dict[str, int]

    @classmethod
    def of(cls, world: World) -> _Copy:
        rows = {}
        with connection.cursor() as cursor:
            for model in _TABLES:
                buffer = io.BytesIO()
                cursor.copy_expert(f'COPY "{model._meta.db_table}" TO STDOUT', buffer)
                rows[model] = buffer.getvalue()
        return cls(rows, {name: one.pk for name, one in world.pipelines.items()}, {name: one.pk for name, one in world.blocks.items()})

    def into(self, world: World) -> None:
        with connection.cursor() as cursor:
            for model, rows in self.rows.items():
                cursor.copy_expert(f'COPY "{model._meta.db_table}" FROM STDIN', io.BytesIO(rows))
            for statement in connection.ops.sequence_reset_sql(no_style(), _TABLES):
                cursor.execute(statement)
        pipelines = Pipeline.objects.select_related("provider", "dataset", "portal").in_bulk(self.pipelines.values())
        blocks = ScheduleBlock.objects.select_related("pipeline").in_bulk(self.blocks.values())
        world.pipelines = {name: pipelines[pk] for name, pk in self.pipelines.items()}
        world.blocks = {name: blocks[pk] for name, pk in self.blocks.items()}


def _machinery(now: datetime) -> None:
    for name, seconds, details in (
        ("tick", 18, {"host": "ops-1", "made": 2, "rung": 3}),
        ("canary", 21, {"host": "ops-1", "pid": 4711}),
        ("worker ops-1", 4, {"workers": 2, "busy": 1}),
        ("worker ops-2", 6, {"workers": 2, "busy": 0}),
    ):
        Pulse.objects.create(name=name, at=now - timedelta(seconds=seconds), details=details)


def _save(blocks: list[ScheduleBlock], with_runs: int | None = None, **counts) -> list[ScheduleBlock]:
    """Save blocks, and the runs of the last `with_runs` finished ones (None: of all)."""
    ScheduleBlock.objects.bulk_create(blocks)
    finished = [one for one in blocks if one.state == State.DONE]
    chosen = finished if with_runs is None else finished[-with_runs:] if with_runs else []
    Run.objects.bulk_create([run for one in chosen for run in runs_of(one, **counts)])
    return blocks


def _requests(world: World, much: bool) -> None:
    feeds = dataset(
        "311-requests", "311 service requests", department="City Manager", refresh_rate="daily", promise_time=time(7), tags="311, requests, streets",
        description="Every request that a resident made by phone, page or app, with its category and when it was closed.",
    )  # fmt: skip
    names = ["srnumber", "createddate", "updated_at", "requesttype", "status", "address", "latitude", "longitude"]
    DatasetColumn.objects.bulk_create(
        [
            DatasetColumn(dataset=feeds, position=place, name=name, label=name.title(), type="text", seen_at=world.now)
            for place, name in enumerate(names)
        ]
    )
    source = provider("city-311", "311 call centre", contact="311-it@riverton.example")
    one = pipeline("requests", "311 service requests", source, feeds, world.now, due_time=time(5), portal_resource="rv31-1aaa")
    dice = random.Random(311)
    blocks = [block(one, window, rows=dice.randint(4200, 5900)) for window in windows(one, world.now, 40)]
    blocks[-9].trigger, blocks[-9].asked_by, blocks[-9].is_forced = Trigger.BUTTON, "operator", True
    _save(blocks, None if much else 6, rejected=22, duplicates=3)
    world.pipelines["requests"], world.blocks["requests"] = one, blocks[-1]


def _scooters(world: World, much: bool) -> None:
    now = world.now
    feeds = dataset("scooter-trips", "Scooter trips", refresh_rate="hourly", tags="mobility, scooters")
    source = provider("zipwheel", "Zipwheel", contact="ops@zipwheel.example", max_parallel=2)
    one = pipeline(
        "scooters-zipwheel", "Scooter trips, Zipwheel", source, feeds, now,
        cadence="hourly", settle_minutes=5, stages=ALL_STAGES, format="json", resource="trips", portal_resource="7d8e-dm7r",
    )  # fmt: skip
    today = now.astimezone(clock.zone(CHICAGO)).date()
    gap = local(today - timedelta(days=9), 8), local(today - timedelta(days=8), 14)
    down = windows(one, now, 2)[-6][0]  # six hours, in the first minutes of an hour too, when the last one has not settled
    odd_day = today - timedelta(days=4)
    odd = {local(odd_day, 13), local(odd_day, 14)}
    dice = random.Random(7)
    blocks = []
    for start, end in windows(one, now, 40):
        hour = start.astimezone(clock.zone(CHICAGO)).hour
        usual = [170, 110, 80, 55, 40, 70, 190, 480, 610, 420, 380, 400, 560, 430, 410, 450, 640, 600, 520, 400, 330, 280, 250, 210][hour]
        if gap[0] <= start < gap[1]:
            continue
        if start >= down:
            code = {"message": "Zipwheel answered 503, “service unavailable”, five times.", "error_code": "http-503"}
            blocks.append(block(one, (start, end), State.FAILED, **code, next_step="Ask Zipwheel, then retry these hours."))
        elif start in odd:
            blocks.append(block(one, (start, end), rows=3, mark="suspicious", message=f"3 rows; this hour usually brings {usual}."))
        elif hour == 4 and dice.random() < 0.5:
            blocks.append(block(one, (start, end), rows=0, mark="empty", message="No trip began in this hour."))
        else:
            blocks.append(block(one, (start, end), rows=max(1, int(usual * dice.uniform(0.7, 1.2)))))
    _save(blocks, None if much else 30)
    failed = [found for found in blocks if found.state == State.FAILED]
    Run.objects.bulk_create([failed_run(found, found.message, found.error_code, fence=fence) for found in failed for fence in range(1, 6)])
    last = Run.objects.filter(block=failed[-1]).first()
    LogLine.objects.create(run=last, level="error", text="GET https://zipwheel.example/trips answered 503 after 0.4 s")
    world.pipelines["scooters"], world.blocks["failed"] = one, failed[-1]


def _permits(world: World, much: bool) -> None:
    feeds = dataset("building-permits", "Building permits", refresh_rate="daily", department="Development Services")
    one = pipeline("permits", "Building permits", provider("permits-db", "Permit office"), feeds, world.now, portal_resource="bp00-0001")
    *earlier, last = windows(one, world.now, 30)
    _save([block(one, window, rows=300 + place % 7 * 20) for place, window in enumerate(earlier)], None if much else 5)
    going = block(one, last, State.RUNNING, stage="load", progress_done=30_000, progress_total=50_000, at=world.now - timedelta(seconds=130))
    going.save()
    starts = world.now - timedelta(seconds=130)
    read = Run(
        block=going, stage="extract", state=RunState.DONE, attempt=1, fence=0, trigger="schedule", asked_by="schedule", holder="ops-1:4711",
        started_at=starts - timedelta(seconds=40), finished_at=starts, rows_in=50_000, rows_out=50_000, bytes=9_800_000,
    )  # fmt: skip
    load = Run(
        block=going,
        stage="load",
        attempt=1,
        fence=1,
        trigger="schedule",
        asked_by="schedule",
        holder="ops-1:4711",
        started_at=starts,
        beat_at=world.now,
    )
    Run.objects.bulk_create([read, load])
    ImportLog.objects.create(run=load, pipeline=one, event="begin", table="permits", at=starts)
    ImportLog.objects.create(run=load, pipeline=one, event="chunk", table="permits", offset=0, rows=30_000, at=starts + timedelta(seconds=20))
    world.pipelines["permits"], world.blocks["running"] = one, going


def _pets(world: World, much: bool) -> None:
    feeds = dataset("pet-licences", "Pet licences", refresh_rate="weekly", promise_time=time(9), department="Animal Services", steward="M. Ito")
    one = pipeline(
        "pets", "Pet licences", provider("animal-services", "Animal Services folder"), feeds, world.now, cadence="weekly", due_time=time(9)
    )
    owed = windows(one, world.now, 60)
    _save([block(one, window, rows=1204) for window in owed[:-2]], None)
    waiting = [
        block(one, window, State.WAITING, message="No file in the folder yet.", error_code="NotReady", due_at=world.now + timedelta(minutes=20))
        for window in owed[-2:]
    ]
    _save(waiting)
    world.pipelines["pets"], world.blocks["waiting"] = one, waiting[-1]


def _trees(world: World, much: bool) -> None:
    feeds = dataset("street-trees", "Street trees", department="Parks")
    one = pipeline(
        "trees", "Street trees", provider("parks", "Parks inventory"), feeds, world.now,
        window_column="", load_mode="replace", key=[], due_time=time(2), is_paused=True,
        paused_reason="Their server moves until Thursday, says Parks.",
    )  # fmt: skip
    _save([block(one, window, rows=58_120) for window in windows(one, world.now, 20)[:-4]], 2)
    world.pipelines["trees"] = one


def _inspections(world: World, much: bool) -> None:
    feeds = dataset("inspections", "Restaurant inspections", refresh_rate="monthly", department="Public Health")
    one = pipeline(
        "inspections", "Restaurant inspections", provider("health", "Health department"), feeds, world.now,
        cadence="monthly", due_time=time(3), starts_on=(world.now - timedelta(days=800)).date(),
    )  # fmt: skip
    Pipeline.objects.filter(pk=one.pk).update(created_at=world.now - timedelta(days=800))
    _save([block(one, window, rows=100 + place) for place, window in enumerate(windows(one, world.now, 790))], 3)
    world.pipelines["inspections"] = one


def _radar(world: World, much: bool) -> None:
    feeds = dataset("radar-counts", "Radar traffic counts", refresh_rate="daily")
    one = pipeline("radar", "Radar traffic counts", provider("wavetronix", "Radar units"), feeds, world.now)
    *earlier, last = windows(one, world.now, 30)
    blocks = [block(one, window, rows=41_000 + place % 5 * 300) for place, window in enumerate(earlier)]
    odd = block(one, last, rows=0, mark="suspicious", message="0 rows; a usual day brings 41,000. The portal was left as it was.")
    _save([*blocks, odd], None if much else 5)
    world.pipelines["radar"], world.blocks["suspicious"] = one, odd


def _cameras(world: World, much: bool) -> None:
    feeds = dataset("camera-counts", "Camera turning counts", refresh_rate="daily")
    one = pipeline("cameras", "Camera turning counts", provider("gridsmart", "Intersection cameras"), feeds, world.now)
    *earlier, last = windows(one, world.now, 30)
    _save([block(one, window, rows=677_268) for window in earlier], None if much else 5)
    retry = block(
        one, last, State.WAITING, stage="load", attempts=1, fence=2, rows=690_112, message="The stage outgrew its memory of 2,048 MB.",
        error_code="out-of-memory", due_at=world.now + timedelta(minutes=8), at=world.now - timedelta(minutes=44),
    )  # fmt: skip
    retry.save()
    failed_run(retry, retry.message, "out-of-memory", stage="load", state=RunState.CRASHED, fence=2).save()
    world.pipelines["cameras"], world.blocks["retrying"] = one, retry


def _shelters(world: World, much: bool) -> None:
    feeds = dataset("shelter-beds", "Shelter occupancy", department="Housing", access="internal")
    one = pipeline(
        "shelters", "Shelter occupancy", provider("housing", "Housing database"), feeds, world.now, portal=None, stages=["extract", "load"]
    )
    *earlier, last = windows(one, world.now, 30)
    _save([block(one, window, rows=62, mark="unchanged" if place % 6 == 5 else "") for place, window in enumerate(earlier)], 4)
    held = block(one, last, State.HELD, stage="load", rows=61, message="Held by operator: the count looks low, asked Housing.", error_code="held")
    held.save()
    world.pipelines["shelters"], world.blocks["held"] = one, held


def _notes(world: World, much: bool) -> None:
    """A pipeline by hand that has never run."""
    feeds = dataset("council-notes", "Council notes", department="City Clerk", access="restricted")
    world.pipelines["notes"] = pipeline("notes", "Council notes", provider("clerk", "Clerk’s folder"), feeds, world.now, cadence="manual")


def _crowd(world: World) -> None:
    """Many more pipelines, mostly well, so that lists are long and numbers wide."""
    dice = random.Random(42)
    sources = [provider(f"office-{number:02}", f"Office {number} of records and measurements") for number in range(12)]
    for number in range(60):
        hourly = number % 10 == 0
        feeds = dataset(
            f"records-{number:02}", f"Records of office {number}, a title as long as some are", refresh_rate="hourly" if hourly else "daily"
        )
        one = pipeline(
            f"records-{number:02}", f"Records of office {number}, a title as long as some are", sources[number % 12], feeds, world.now,
            cadence="hourly" if hourly else "daily", due_time=None if hourly else time(number % 24),
        )  # fmt: skip
        blocks = [block(one, window, rows=int(10 ** dice.uniform(1, 6))) for window in windows(one, world.now, 30)]
        if number % 15 == 7:
            blocks[-1] = block(
                one, (blocks[-1].starts_at, blocks[-1].ends_at), State.FAILED, message="The portal refused the upload: 403.", error_code="http-403"
            )
        _save(blocks, 28 if not hourly else 60)


def _requests_story(world: World, real_file: bool) -> None:
    """The newest 311 block with all that its page shows: files, an import log, a log, rejected rows."""
    one = world.blocks["requests"]
    runs = {run.stage: run for run in one.runs.all()}
    lines = ["srnumber,createddate,updated_at,requesttype,status,address,latitude,longitude"]
    lines += [f"1-{1500 + n},2026-11-20T08:00:00,2026-11-20T09:00:00,Bulky Items,Closed,{n} MAIN ST,34.0{n},-118.2{n}" for n in range(1, 40)]
    body = ("\n".join(lines) + "\n").encode()
    sha256 = hashlib.sha256(body).hexdigest()
    pointer = lake.shelf("requests", "311-requests", "raw", one.starts_at, sha256, "page-00001.csv")
    if real_file:
        temporary = Path(f"{pointer.replace('/', '_')}.tmp").absolute()
        temporary.write_bytes(body)
        try:
            lake.lake().put(temporary, pointer=pointer, sha256=sha256)
        finally:
            temporary.unlink(missing_ok=True)
    CatalogEntry.objects.create(
        dataset=one.pipeline.dataset, source="requests", layer=Layer.RAW, id_base="page-00001", id_ext=".csv", window_start=one.starts_at,
        window_end=one.ends_at, pointer=pointer, sha256=sha256, bytes=len(body), rows=one.rows, run_id=runs["extract"].pk,
        origin="https://city-311.example/resource/abcd-1234.csv", created_at=runs["extract"].finished_at,
    )  # fmt: skip
    extract, load = runs["extract"], runs["load"]
    LogLine.objects.bulk_create(
        [
            LogLine(run=extract, at=extract.started_at, text=f"The source has {one.rows:,} rows for this day."),
            LogLine(run=extract, at=extract.finished_at, text="Wrote page-00001.csv."),
            LogLine(run=load, at=load.started_at, level="warning", text="22 rows were rejected: their createddate is no date."),
            LogLine(run=load, at=load.finished_at, text="Merged."),
        ]
    )
    steps = [("begin", 0, 0, None), ("chunk", 0, one.rows, None), ("end", one.rows, load.rows_out, one.rows)]
    ImportLog.objects.bulk_create(
        [
            ImportLog(run=load, pipeline=one.pipeline, at=load.started_at + timedelta(seconds=place), event=event, file=pointer,
                      table="public.requests",
                      offset=offset, rows=rows, total=total)
            for place, (event, offset, rows, total) in enumerate(steps)
        ]
    )  # fmt: skip
    RejectedRow.objects.bulk_create(
        [
            RejectedRow(
                run=load, block=one, reason="not a date", column="createddate", value="2026-13-40", row_key=f"1-{n}", raw={"srnumber": f"1-{n}"},
                file=pointer, line=n + 2, at=load.finished_at,
            )
            for n in range(22)
        ]
    )  # fmt: skip
