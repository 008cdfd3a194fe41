"""The monthly report of trips: hand-counted numbers, months by the city's clock, zeros for who had none, and nothing told under k."""

import csv
import random
from collections import Counter
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from django.core.cache import cache

from catalog.models import Dataset
from pipelines import warehouse
from pipelines.connectors.base import Column
from pipelines.errors import SetupError
from pipelines.models import Pipeline, Provider, ScheduleBlock, State, UpkeepJob, UpkeepRun
from pipelines.upkeep import after, jobs, trip_counts
from pipelines.upkeep.trip_counts import Line, Terms, of_month, too_small, veiled
from pipelines.upkeep.trip_report import as_json, told
from pipelines.warehouse.measures import By, Measure, Question, Where, offsets
from pipelines.warehouse.tables import Table
from tests.mariadb import mariadb, mariadb_server
from tests.pipelines.commanding import command

__all__ = ["mariadb", "mariadb_server"]

CHICAGO = "America/Chicago"
NOW = datetime(2026, 12, 20, 18, tzinfo=UTC)
MILE = "1609.344"
COLUMNS = {
    "provider_id": "text", "provider_name": "text", "trip_id": "text", "device_id": "text", "vehicle_type": "text", "start_time": "instant",
    "duration_s": "number", "distance_m": "number", "trip_type": "text",
}  # fmt: skip
WHEELS, BOLT = "0000-wheels", "0000-bolt"
#: operator, start (UTC), metres, seconds, device, vehicle type, trip type
TRIPS = [
    (WHEELS, "2026-10-01 04:59:59", "5000", "500", "a9", "scooter", ""),  # the last second of September
    (WHEELS, "2026-10-01 05:00:00", MILE, "600", "a1", "scooter", "rider"),
    (WHEELS, "2026-11-01 04:59:59", "3218.688", "1200", "a1", "scooter", ""),  # the last second of October, by summer time
    (WHEELS, "2026-10-15 12:00:00", "112654.08", "3600", "a2", "bicycle", ""),  # 70 miles
    (WHEELS, "2026-10-16 12:00:00", "161", "30", "a3", "scooter", ""),
    (WHEELS, "2026-10-15 12:00:00", "0", "60", "a4", "scooter", ""),
    (WHEELS, "2026-10-16 12:00:00", "160", "30", "a5", "scooter", ""),  # under 0.1 mile
    (WHEELS, "2026-10-16 12:00:00", "804672", "30", "a6", "scooter", ""),  # 500 miles
    (WHEELS, "2026-10-16 12:00:00", "1000", "86400", "a7", "scooter", ""),  # a day
    (WHEELS, "2026-10-17 12:00:00", "2000", "300", "a8", "scooter", "maintenance"),
    (WHEELS, "2026-11-01 05:00:00", MILE, "600", "a1", "scooter", ""),  # the first second of November, still by summer time
    (WHEELS, "2026-12-01 05:59:59", MILE, "300", "a2", "scooter", ""),  # the last of November, by winter time
    (WHEELS, "2026-12-01 06:00:00", "804.672", "120", "a2", "scooter", ""),
    (BOLT, "2026-11-10 12:00:00", "24140.16", "600", "b1", "scooter", ""),  # 15 miles
    (BOLT, "2026-11-11 12:00:00", "48279.32", "660", "b1", "", ""),  # a metre less than 30
]


def make(dsn: str, rows, pipelines: dict[str, int], name: str = "trips") -> None:
    """The table of trips with these rows, as a load leaves it."""
    engine = warehouse.engine(dsn)
    with closing(engine.connect(dsn)) as connection:
        table = Table(name, tuple(Column(name=column, type=kind) for column, kind in COLUMNS.items()), ("provider_id", "trip_id"))
        engine.prepare(connection, table)
        fields = [*COLUMNS, "_odo_pipeline", "_odo_block", "_odo_seq", "_odo_loaded_at"]
        insert = f"insert into {engine.full_name(name)} ({', '.join(fields)}) values ({', '.join(['%s'] * len(fields))})"
        with connection.cursor() as cursor:
            for number, (operator, start, metres, seconds, device, vehicle, kind) in enumerate(rows, start=1):
                values = [operator, f"{operator} Inc.", f"t{number}", device, vehicle or None, start, seconds, metres, kind or None]
                cursor.execute(insert, [*values, pipelines.get(operator, 0), 1, number, "2026-12-20 03:00:00"])
        connection.commit()


def drop(dsn: str, *names: str) -> None:
    engine = warehouse.engine(dsn)
    with closing(engine.connect(dsn)) as connection, connection.cursor() as cursor:
        for name in names:
            cursor.execute(f"drop table if exists {engine.full_name(name)}")
        connection.commit()


@pytest.fixture(params=["postgres", pytest.param("mariadb", marks=pytest.mark.needs("mariadb"))])
def dsn(request, db, settings):
    """The address of a warehouse, of each engine in turn."""
    address = settings.WAREHOUSES["default"] if request.param == "postgres" else request.getfixturevalue("mariadb")
    settings.WAREHOUSES = {**settings.WAREHOUSES, "default": address}
    cache.clear()
    yield address
    drop(address, "trips", "moments")
    cache.clear()


def operators() -> dict[str, Pipeline]:
    """Three operators, one of whom never had a trip; each is owed since October, the last one since December."""
    dataset = Dataset.objects.create(slug="trips", title="Trips")
    found = {}
    for name, since in (("Wheels", date(2026, 10, 1)), ("Bolt", date(2026, 10, 1)), ("Sleepy", date(2026, 12, 1))):
        provider = Provider.objects.create(
            slug=name.lower(), title=name, kind="mds", base_url="https://mds.example", parameters={"provider_id": f"0000-{name.lower()}"}
        )
        found[name] = Pipeline.objects.create(
            slug=name.lower(), title=name, provider=provider, dataset=dataset, resource="trips", table="trips", key=["provider_id", "trip_id"],
            window_column="end_time", cadence="hourly", stages=["extract", "standardize", "load"], time_zone=CHICAGO, starts_on=since,
        )  # fmt: skip
    return found


@pytest.fixture
def city(dsn):
    """The three operators, with the trips above in the warehouse."""
    found = operators()
    make(dsn, TRIPS, {WHEELS: found["Wheels"].pk, BOLT: found["Bolt"].pk})
    return SimpleNamespace(dsn=dsn, pipelines=found, source=trip_counts.chosen())


def counted(city, terms, **more):
    return trip_counts.months(city.source, terms, now=NOW, **more)


# the numbers, by hand


def test_a_month_is_counted_as_by_hand(city):
    bolt, wheels = counted(city, of_month(date(2026, 10, 1), CHICAGO))
    assert (wheels.provider, wheels.provider_id, wheels.trips, wheels.devices) == ("Wheels", WHEELS, 4, 3)
    # 1 + 2 + 70 miles and 161 metres; 600 + 1200 + 3600 + 30 seconds
    assert round(wheels.miles, 6) == Decimal("73.100041") and round(wheels.length, 6) == Decimal("18.275010")
    assert wheels.minutes == Decimal("22.625")
    assert (wheels.rows, wheels.left_out, wheels.zero, wheels.long) == (9, 5, 1, 2), "zero and long ones are of all trips, the filter would hide them"
    assert (wheels.from_15, wheels.from_30, wheels.from_45) == (2, 2, 2) and wheels.received == date(2026, 12, 19)
    assert (bolt.provider, bolt.provider_id, bolt.trips, bolt.rows, bolt.length) == ("Bolt", BOLT, 0, 0, None)


def test_months_begin_and_end_by_the_citys_clock_over_its_change(city):
    lines = counted(city, Terms(date(2026, 10, 1), date(2026, 12, 31), CHICAGO))
    assert {(line.month.month, line.provider): line.trips for line in lines} == {
        (10, "Wheels"): 4, (10, "Bolt"): 0, (11, "Wheels"): 2, (11, "Bolt"): 2, (12, "Wheels"): 1, (12, "Bolt"): 0, (12, "Sleepy"): 0,
    }  # fmt: skip
    lines = counted(city, Terms(date(2026, 10, 1), date(2026, 12, 31), "UTC"))
    assert {(line.month.month, line.provider): line.trips for line in lines if line.trips} == {
        (10, "Wheels"): 4, (11, "Wheels"): 2, (11, "Bolt"): 2, (12, "Wheels"): 2,
    }, "by UTC the second before it is another month's"  # fmt: skip
    night = Terms(date(2026, 11, 1), date(2026, 11, 1), CHICAGO)
    assert night.until - night.since == timedelta(hours=25)


def test_without_the_filter_every_trip_counts(city):
    [_, wheels] = counted(city, of_month(date(2026, 10, 1), CHICAGO, valid_only=False))
    assert (wheels.trips, wheels.left_out, wheels.devices) == (9, 0, 8)


def test_what_is_long_may_be_chosen(city):
    [_, wheels] = counted(city, of_month(date(2026, 10, 1), CHICAGO, long_miles=80))
    [bolt, _] = counted(city, of_month(date(2026, 11, 1), CHICAGO, long_miles=15))
    assert wheels.long == 1 and (bolt.long, bolt.from_15, bolt.from_30, bolt.from_45) == (2, 2, 0, 0)


def test_an_operator_has_zeros_from_when_it_is_owed_until_it_is_switched_off(city):
    Provider.objects.filter(slug="bolt").update(is_active=False)
    block = {"stage": "load", "due_at": NOW, "state": State.DONE, "finished_at": NOW}
    start = datetime(2026, 10, 5, tzinfo=UTC)
    ScheduleBlock.objects.create(pipeline=city.pipelines["Bolt"], starts_at=start, ends_at=start + timedelta(hours=1), **block)
    city.source = trip_counts.chosen()
    zeros = [(line.month.month, line.provider) for line in counted(city, Terms(date(2026, 8, 1), date(2027, 2, 28), CHICAGO)) if not line.rows]
    assert zeros == [(10, "Bolt"), (12, "Sleepy")], "none before, none in months to come, none after its last hour"


def test_hours_that_have_not_come_are_told_beside_the_numbers(city):
    start = datetime(2026, 11, 1, 4, tzinfo=UTC)  # the last hour of October
    for hour, state in enumerate([State.DONE, State.DONE, State.FAILED, State.HELD]):
        more = {"finished_at": NOW} if state in (State.DONE, State.FAILED) else {}
        begins = start + timedelta(hours=hour)
        ScheduleBlock.objects.create(
            pipeline=city.pipelines["Wheels"], starts_at=begins, ends_at=begins + timedelta(hours=1), stage="load", due_at=NOW, state=state, **more
        )
    lines = counted(city, Terms(date(2026, 10, 1), date(2026, 12, 31), CHICAGO))
    told = {(line.month.month, line.provider): line.hours_open for line in lines}
    assert (told[10, "Wheels"], told[11, "Wheels"]) == (743, 720), (
        "November has an hour more than 30 days; one is done, planned or not the rest is owed"
    )
    assert (told[10, "Bolt"], told[11, "Bolt"]) == (744, 721)
    assert told[12, "Sleepy"] == told[12, "Bolt"] == 19 * 24 + 12, "of this month what has passed: it is noon of the 20th"


def test_trips_by_vehicle_type_and_by_day_and_hour(city):
    october = of_month(date(2026, 10, 1), CHICAGO)
    assert [(each.vehicle_type, each.trips, each.devices) for each in trip_counts.vehicles(city.source, october)] == [
        ("scooter", 3, 2),
        ("bicycle", 1, 1),
    ]
    lines = counted(city, october, by_vehicle=True)
    assert [(line.provider, line.vehicle_type, line.trips) for line in lines] == [("Bolt", "", 0), ("Wheels", "bicycle", 1), ("Wheels", "scooter", 3)]
    assert trip_counts.by_day(city.source, october) == {
        (date(2026, 10, 1), "Wheels"): 1, (date(2026, 10, 15), "Wheels"): 1, (date(2026, 10, 16), "Wheels"): 1, (date(2026, 10, 31), "Wheels"): 1,
    }  # fmt: skip
    assert trip_counts.by_hour(city.source, october) == {(3, 0): 1, (5, 23): 1, (3, 7): 1, (4, 7): 1}


def test_an_account_that_brings_two_operators_names_both(city):
    drop(city.dsn, "trips")
    make(city.dsn, TRIPS, dict.fromkeys((WHEELS, BOLT), city.pipelines["Wheels"].pk))
    lines = counted(city, of_month(date(2026, 11, 1), CHICAGO))
    assert [(line.provider, line.trips) for line in lines] == [("Bolt", 0), (f"Wheels: {BOLT} Inc.", 2), (f"Wheels: {WHEELS} Inc.", 2)]


# any question


def test_both_engines_read_the_clock_as_we_do(dsn):
    """Every part of a local time, for instants on both sides of every change of the clock in three years."""
    dice = random.Random(4)
    edges = [datetime(2025, 3, 9, 8, tzinfo=UTC), datetime(2025, 11, 2, 7, tzinfo=UTC), datetime(2026, 3, 8, 8, tzinfo=UTC)]
    moments = [edge + timedelta(seconds=dice.randint(-7200, 7200)) for edge in edges for _ in range(60)]
    moments += [edge + timedelta(seconds=seconds) for edge in edges for seconds in (-1, 0, 1)]
    moments += [datetime(2024, 12, 30, tzinfo=UTC) + timedelta(seconds=dice.randint(0, 500 * 86400)) for _ in range(200)]
    make(dsn, [(WHEELS, f"{at:%Y-%m-%d %H:%M:%S}", "1", "1", "d", "", "") for at in moments], {}, name="moments")
    for name in (CHICAGO, "UTC", "Asia/Kathmandu"):
        zone = ZoneInfo(name)
        clock = offsets(zone, min(moments), max(moments))
        by = tuple(By(part, "start_time", part) for part in ("month", "day", "weekday", "hour"))
        found = warehouse.engine(dsn).measures(dsn, "moments", Question(by, (Measure("n"),), offsets=clock))
        local = [at.astimezone(zone) for at in moments]
        assert {tuple(row.values())[:4]: row["n"] for row in found} == Counter(
            (at.date().replace(day=1), at.date(), at.weekday(), at.hour) for at in local
        )


def test_a_question_that_the_table_cannot_answer_is_refused_in_words(city):
    ask = warehouse.engine(city.dsn).measures
    refused = {
        "no-table": ("no_such", Question((), (Measure("n"),))),
        "no-column": ("trips", Question((By("x", "x"),), (Measure("n", "sum", "device_id"),))),
        "too-many-groups": ("trips", Question((By("trip_id", "trip_id"),), (Measure("n"),), limit=14)),
    }
    for code, (table, question) in refused.items():
        with pytest.raises(SetupError) as told:
            ask(city.dsn, table, question)
        assert told.value.code == code and told.value.next_step
    with pytest.raises(SetupError, match="device_id is text, x is missing|x is missing, device_id is text"):
        ask(city.dsn, *refused["no-column"])
    assert ask(city.dsn, "trips", Question((), (Measure("n"), Measure("m", "max", "duration_s", (Where("distance_m", below=0),))))) == [
        {"n": 15, "m": None}
    ]


def test_the_clocks_changes_are_found_to_the_second():
    found = offsets(ZoneInfo(CHICAGO), datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    assert found == ((None, -21600), (datetime(2026, 3, 8, 8, tzinfo=UTC), -18000), (datetime(2026, 11, 1, 7, tzinfo=UTC), -21600))


# what is not told


def test_counts_under_k_are_not_told_nor_what_would_tell_them():
    line = Line(
        date(2026, 10, 1),
        "Wheels",
        trips=40,
        miles=Decimal(80),
        length=Decimal(2),
        minutes=Decimal(9),
        zero=9,
        long=10,
        devices=12,
        rows=44,
        left_out=4,
    )
    [shown] = veiled([line], 10)
    assert (shown.trips, shown.miles, shown.zero, shown.long, shown.devices) == (40, Decimal(80), None, 10, 12)
    assert (shown.left_out, shown.rows) == (None, None), "one is the other less the trips"
    [few] = veiled([Line(date(2026, 10, 1), "Wheels", trips=9, miles=Decimal(80), length=Decimal(2), rows=30, left_out=21)], 10)
    assert (few.trips, few.miles, few.length, few.rows, few.left_out) == (None,) * 5
    cells = few.cells(of_month(date(2026, 10, 1), CHICAGO, k=10))
    assert (cells["total_trips"], cells["trips_in_table"], cells["total_trip_miles"]) == (-1, -1, None)


def test_of_the_parts_of_a_whole_never_one_alone_is_hidden():
    assert (
        too_small([100, 5, 40, 60], 10) == {1, 2}
        and too_small([5, 6, 100], 10) == {0, 1}
        and too_small([5], 10) == {0}
        and too_small([50, 60], 10) == set()
    )
    lines = [
        Line(date(2026, 10, 1), "Wheels", vehicle_type=kind, trips=trips, rows=trips)
        for kind, trips in (("scooter", 90), ("bicycle", 3), ("moped", 20))
    ]
    assert [line.trips for line in veiled(lines, 10)] == [90, None, None]


# the command


def test_the_command_writes_the_columns_of_the_old_report_first(city, tmp_path):
    told = command("trip_report", "--month", "2026-11", "--csv", str(tmp_path / "report.csv"))
    assert told.code == 0 and "November 2026: 4" in told.out, told.err
    with (tmp_path / "report.csv").open(newline="") as stream:
        [head, *lines] = csv.reader(stream)
    assert head[:10] == [
        "provider", "year", "month", "total_trips", "total_trip_miles", "trip_length_avg", "trip_duration_avg", "trips_zero_distance",
        "trips_long_distance", "date_received",
    ]  # fmt: skip
    assert [line[:10] for line in lines] == [
        ["Bolt", "2026", "11", "2", "45.00", "22.50", "10.50", "0", "0", "2026-12-19"],
        ["Wheels", "2026", "11", "2", "2.00", "1.00", "7.50", "0", "0", "2026-12-19"],
    ]


def test_the_command_as_json_with_k(city):
    told = command("trip_report", "--month", "2026-10", "--zone", "UTC", "--k", "2", "--json")
    assert told.code == 0, told.err
    bolt, wheels = told.json["lines"]
    assert told.json["terms"]["zone"] == "UTC" and bolt["total_trips"] == -1 and (wheels["total_trips"], wheels["trips_zero_distance"]) == (4, -1)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--month", "2026-13"], "is no month"),
        (["--month", "2026-10", "--zone", "Mars"], "not a time zone"),
        (["--from", "2026-10-05", "--to", "2026-10-01"], "ends before it begins"),
        (["--month", "2026-10", "--table", "nothing"], "No MDS pipeline loads a table 'nothing'"),
    ],
)
def test_a_slip_of_the_command_is_refused_in_words(db, words, why):
    operators()
    told = command("trip_report", *words)
    assert told.code == 2 and why in told.err and "Next: " in told.err


def test_without_mds_the_command_says_what_to_do(db):
    told = command("trip_report", "--month", "2026-10")
    assert told.code == 2 and "No pipeline brings trips" in told.err


# the job


def test_the_job_keeps_last_months_report_and_tells_the_webhook(city, monkeypatch):
    posted = []
    monkeypatch.setenv("TRIPS_HOOK", "https://hooks.example/services/x")
    monkeypatch.setattr(after, "tell", lambda address, posts, *, owner: posted.append((address, posts)) or "hooks.example took it.")
    monkeypatch.setattr("pipelines.upkeep.trip_report.timezone.now", lambda: NOW)
    job = UpkeepJob.objects.create(
        kind="trip-report", title="Monthly", cadence="monthly", day=3, time_zone=CHICAGO, options={"webhook": "env:TRIPS_HOOK"}
    )
    run = jobs.carry_out(jobs.start(job, actor=jobs.audit.SCHEDULE).run.pk)
    assert run.state == UpkeepRun.State.DONE, run.message
    assert run.details["month"] == "2026-11" and [line["total_trips"] for line in run.details["lines"]] == [2, 2]
    [(address, [post])] = posted
    assert address == "https://hooks.example/services/x" and post["text"].startswith("Trips in November 2026: 4, 47 miles.")
    assert run.message.endswith("hooks.example took it.")


def test_numbers_of_a_line_can_be_kept_as_json():
    cells = Line(date(2026, 10, 1), "Wheels", trips=1, miles=Decimal("1.005"), received=date(2026, 11, 2)).cells(of_month(date(2026, 10, 1), CHICAGO))
    assert as_json(cells)["date_received"] == "2026-11-02" and isinstance(as_json(cells)["total_trip_miles"], float)
    assert told(Terms(date(2026, 10, 1), date(2026, 10, 9), CHICAGO), []).startswith("Trips in 2026-10-01 to 2026-10-09: 0, 0 miles.")
