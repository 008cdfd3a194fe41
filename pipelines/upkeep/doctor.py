"""Is everything that the city stands on in order? One question after the other, each with a time-out, each with a next step.

The doctor also speaks when the database is down: then he says so, and asks what can be asked without it. What belongs to
higher layers (the queue, the door to outside systems) is handed to him.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psycopg2
from django.conf import settings
from django.contrib.staticfiles import finders
from django.contrib.staticfiles.storage import ManifestFilesMixin, staticfiles_storage
from django.core import checks
from django.db import DatabaseError, connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Min
from django.db.models.functions import Now
from django.utils import timezone
from django_q.models import OrmQ

from catalog import lake as lakes
from pipelines import clock, secrets, warehouse
from pipelines.connectors.addresses import AllowList, address
from pipelines.connectors.base import Column, Connector
from pipelines.errors import PipelineError, SetupError
from pipelines.models import AfterStep, Pipeline, Provider, Pulse, ScheduleBlock, Stage
from pipelines.stages.release import public_key
from pipelines.upkeep import after
from pipelines.warehouse import mysql, postgres

OK, WARNING, FAILED, SKIPPED = "ok", "warning", "failed", "skipped"

# how long a question may take, in seconds
DATABASE, WAREHOUSE, LAKE, QUEUE, PROVIDER = 10.0, 15.0, 30.0, 10.0, 20.0
#: So many providers are asked at once.
AT_ONCE = 8
#: Leases go by the database's clock and schedules by the host's: seconds between them.
SKEW_WARNING, SKEW_FAILED = 2.0, 60.0
#: Bytes left on a disk.
ROOM_WARNING, ROOM_FAILED = 5 << 30, 512 << 20
#: Tick and canary are heard each minute or more often; seconds of silence.
SILENCE = 180.0
#: A message that waits longer, in seconds, says that there are too few workers, or none.
LONG_WAIT = 600.0
#: Where clouds keep the credentials of a machine.
CLOUD_CREDENTIALS = "169.254.169.254"
_LOOK_AT_WAREHOUSE = "Look at WAREHOUSE_URL, and whether that server runs."
START = "Start web, workers and schedule: python3 manage.py up"

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Finding:
    """One answer: `status` is "ok", "warning", "failed" or "skipped"; `next_step` is empty where nothing is to be done."""

    name: str
    status: str
    message: str
    next_step: str = ""


def examine(
    *,
    connect: Callable[[Provider], Connector],
    columns: Callable[[Pipeline], tuple[Column, ...]],
    queue_depth: Callable[[], int],
    pulse_age: Callable[[str], float | None],
    network: bool = True,
) -> Iterator[Finding]:
    """All findings, in order, as they come. Raises nothing: a question that can't be asked is a finding too.

    `connect` gives a provider's connector, `columns` what a pipeline publishes, `queue_depth` the messages that wait,
    `pulse_age(name)` the seconds since a sign of life. Without `network` no provider is asked; lake, warehouses and queue
    are ours, and are.
    """
    yield from _asked("settings", _settings)
    yield from _asked("keys", _keys)
    yield from _asked("outbound allow-list", _outbound)
    yield from _asked("time zone", _time_zone)
    yield from _asked("static files", _static_files)

    usable = True
    for question, name in ((_database, "database"), (_migrations, "migrations")):
        if usable:
            findings = list(_asked(name, question))
            yield from findings
            usable = all(finding.status != FAILED for finding in findings)

    yield from _asked("lake", _lake)
    yield from _asked("work folder", _work_folder)
    for alias, dsn in settings.WAREHOUSES.items():
        yield from _asked(f"warehouse {alias}", lambda alias=alias, dsn=dsn: _warehouse(alias, dsn))

    if not usable:
        for name in ("queue", "workers", "schedule", "time zones", "providers", "after loads"):
            yield Finding(name, SKIPPED, "Not asked, because the database can't be.", "Set the database right, then ask again.")
        return
    yield from _asked("time zones", _time_zones)
    yield from _asked("queue", lambda: _queue(queue_depth))
    yield from _asked("workers", lambda: _workers(pulse_age))
    yield from _asked("schedule", lambda: _schedule(pulse_age))
    yield from _asked("providers", lambda: _providers(connect, columns, network))
    yield from _asked("after loads", _after_loads)


def _asked(name: str, question: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of one question, without secrets; whatever it raises becomes a finding."""
    try:
        for finding in question():
            yield Finding(finding.name, finding.status, secrets.redact(finding.message), secrets.redact(finding.next_step))
    except PipelineError as error:
        yield Finding(name, FAILED, secrets.redact(error.message), secrets.redact(error.next_step))
    except DatabaseError as error:
        yield Finding(name, FAILED, f"The database refused: {_in_a_line(error)}", "Look at the database's log.")
    except Exception as error:  # noqa: BLE001  one broken question must not hide the answers to the others
        words = secrets.redact(f"{type(error).__name__}: {_in_a_line(error)}")
        yield Finding(name, FAILED, f"This could not be asked: {words}", "Tell the maintainers, with this line.")


def _in_a_line(error: BaseException) -> str:
    """The first line of a driver's message; what may be a piece of an address with a password in it is taken out."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"\S*@\S*", "***", text)


def _within(seconds: float, question: Callable[[], Answer]) -> Answer:
    """The answer, or what the question raised, or TimeoutError: some libraries wait longer than they were told to."""
    return _all_within(seconds, {"": question})[""]()


def _all_within(seconds: float, questions: Mapping[str, Callable[[], Answer]]) -> dict[str, Callable[[], Answer]]:
    """Ask all at once; for each a function that returns its answer or raises its error, TimeoutError for no answer.

    Threads that never come back are left behind: they hold nothing, and the process ends without them.
    """
    outcomes: dict[str, Callable[[], Answer]] = {}

    def run(name: str, question: Callable[[], Answer]) -> None:
        try:
            answer = question()
        except Exception as error:  # noqa: BLE001  raised again by whoever asks for the answer
            outcomes[name] = _raiser(error)
        else:
            outcomes[name] = lambda: answer

    threads = [threading.Thread(target=run, args=item, daemon=True) for item in questions.items()]
    for thread in threads:
        thread.start()
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    late = _raiser(TimeoutError(f"no answer within {seconds:.0f} seconds"))
    # a copy: a thread that comes late must not change what was said
    arrived = dict(outcomes)
    return {name: arrived.get(name, late) for name in questions}


def _raiser(error: Exception) -> Callable[[], Any]:
    def raise_it() -> Any:
        raise error

    return raise_it


# the program


def _settings() -> Iterator[Finding]:
    messages = [message for message in checks.run_checks() if not message.is_silenced()]
    for message in messages:
        yield Finding("settings", FAILED if message.is_serious() else WARNING, f"{message.msg} ({message.id})", message.hint or "")
    if settings.DEBUG and settings.ENVIRONMENT != "local":
        yield Finding("settings", WARNING, f"DEBUG is on in {settings.ENVIRONMENT}: errors show their innards.", "Set DEBUG=false.")
    elif not messages:
        yield Finding("settings", OK, f"All system checks pass; the environment is called {settings.ENVIRONMENT}.")


def _keys() -> Iterator[Finding]:
    """Where SECRET_KEY and FERNET_KEYS come from, and who else may read them."""
    for name in ("SECRET_KEY", "FERNET_KEYS"):
        if os.environ.get(name):
            yield Finding("keys", OK, f"{name} comes from the environment.")
            continue
        path = settings.VAR_DIR / "secrets" / name.lower()
        if not path.exists():
            step = f"Set {name}, or put the file back, before the next start makes another key."
            yield Finding("keys", FAILED, f"{name} is not set, and its file {path} is gone.", step)
        elif stat.S_IMODE(path.stat().st_mode) & 0o077:
            yield Finding("keys", FAILED, f"Other users may read {name} in {path}.", f"chmod 600 {path}")
        elif settings.ENVIRONMENT == "prod":
            step = f"Set {name} in the environment of every machine, and keep a copy with the backups."
            yield Finding("keys", WARNING, f"{name} is only kept on this machine, in {path}.", step)
        else:
            yield Finding("keys", OK, f"{name} is kept in {path}, readable by its owner alone.")


def _outbound() -> Iterator[Finding]:
    name, entries = "outbound allow-list", settings.OUTBOUND_ALLOW
    try:
        allow = AllowList(entries)
    except ValueError as error:
        yield Finding(name, FAILED, f"{error}.", "Set OUTBOUND_ALLOW to hosts, host:port or networks, with commas.")
        return
    if allow.permits(CLOUD_CREDENTIALS, 80, address(CLOUD_CREDENTIALS)):
        step = f"Narrow the entry of OUTBOUND_ALLOW that holds {CLOUD_CREDENTIALS}."
        yield Finding(name, FAILED, "Providers may reach the address where clouds keep this machine's credentials.", step)
    elif all(allow.permits(host, 443, address(host)) for host in ("10.200.3.4", "172.20.3.4", "192.168.3.4")):
        step = "Name the hosts or networks of the sources in OUTBOUND_ALLOW, and nothing more."
        yield Finding(name, WARNING, "Providers may reach every private address.", step)
    elif not entries:
        yield Finding(name, OK, "Providers may reach public addresses only.")
    else:
        yield Finding(name, OK, f"Providers may reach public addresses and {', '.join(entries)}.")


def _time_zone() -> Iterator[Finding]:
    try:
        summer = datetime(2026, 7, 1, tzinfo=UTC).astimezone(clock.zone("America/Chicago")).utcoffset().total_seconds()
        clock.zone(settings.TIME_ZONE)
    except ValueError as error:
        yield Finding("time zone", FAILED, str(error), "Set TIME_ZONE; if no name works, install the system's package tzdata.")
        return
    if summer != -5 * 3600:
        yield Finding(
            "time zone",
            FAILED,
            "The time zone data does not know summer time in Chicago.",
            "Install the system's package tzdata anew.",
        )
        return
    yield Finding("time zone", OK, f"The city's clock is {settings.TIME_ZONE}: {datetime.now(clock.zone(settings.TIME_ZONE)):%a %H:%M}.")


def _static_files() -> Iterator[Finding]:
    """Whether every style sheet and script was collected since it last changed."""
    name, step = "static files", "python3 manage.py collectstatic --clear --no-input (`up` and `demo` do it by themselves)"
    if not isinstance(staticfiles_storage, ManifestFilesMixin):
        yield Finding(name, OK, "They are served as they lie, for DEBUG is on.")
        return
    manifest = Path(settings.STATIC_ROOT) / staticfiles_storage.manifest_name
    if not manifest.exists():
        yield Finding(name, WARNING, f"They were never collected into {settings.STATIC_ROOT}: pages have no style.", step)
        return
    collected, _ = staticfiles_storage.load_manifest()
    written = manifest.stat().st_mtime
    sources = [(path, storage) for finder in finders.get_finders() for path, storage in finder.list(["CVS", ".*", "*~"])]
    stale = [path for path, storage in sources if path not in collected or Path(storage.path(path)).stat().st_mtime > written]
    if stale:
        yield Finding(name, WARNING, f"{len(stale)} changed since they were collected ({stale[0]} first).", step)
    else:
        yield Finding(name, OK, f"{len(collected)} files are collected.")


# where things are kept


def _database() -> Iterator[Finding]:
    """Whether it answers, is new enough, and has the same time as this host."""
    started = time.time()
    try:
        version, there = _within(DATABASE, _version_and_time)
    except (psycopg2.Error, TimeoutError) as error:
        chosen = "Look at DATABASE_URL, and whether that server runs."
        own = f"Start it with: python3 manage.py up; what it says is in {settings.VAR_DIR}/log/postgres.log"
        yield Finding("database", FAILED, f"It does not answer: {_in_a_line(error)}", chosen if os.environ.get("DATABASE_URL") else own)
        return
    # the middle of the question is when the answer was true
    skew = there - (started + time.time()) / 2
    for message in checks.run_checks(tags=[checks.Tags.database], databases=["default"]):
        yield Finding("database", FAILED if message.is_serious() else WARNING, message.msg, message.hint or "")
    place = connection.settings_dict
    yield Finding("database", OK, f"PostgreSQL {version} answers at {place['HOST'] or 'localhost'}:{place['PORT'] or 5432}.")
    words = f"Its clock is {abs(skew):.1f} seconds {'before' if skew > 0 else 'behind'} this host's"
    step = "Let both machines ask a time server (chrony, systemd-timesyncd)."
    if abs(skew) > SKEW_WARNING:
        yield Finding("clock", FAILED if abs(skew) > SKEW_FAILED else WARNING, f"{words}: schedules and leases disagree.", step)
    else:
        yield Finding("clock", OK, "This host and the database have the same time, within two seconds.")


def _version_and_time() -> tuple[str, float]:
    """(the server's version, its clock in epoch seconds), over a connection of its own."""
    parameters = {**connection.get_connection_params(), "connect_timeout": 5}
    with closing(psycopg2.connect(**parameters)) as fresh, fresh.cursor() as cursor:
        cursor.execute("select current_setting('server_version'), extract(epoch from clock_timestamp())::float8")
        version, there = cursor.fetchone()
        return version.split()[0], there


def _from_database(question: Callable[[], Answer]) -> Answer:
    """The answer of a query that may not take longer than a few seconds. Raises DatabaseError."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("select set_config('statement_timeout', %s, true)", [f"{DATABASE:.0f}s"])
        return question()


def _migrations() -> Iterator[Finding]:
    def lacking() -> list[str]:
        executor = MigrationExecutor(connection)
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
        return [f"{migration.app_label}.{migration.name}" for migration, _ in plan]

    waiting = _from_database(lacking)
    if waiting:
        yield Finding("migrations", FAILED, f"{len(waiting)} are not applied ({waiting[0]} first).", "python3 manage.py migrate")
    else:
        yield Finding("migrations", OK, "All are applied.")


def _lake() -> Iterator[Finding]:
    place = lakes.lake()
    look = "Look at LAKE_URL, and whether that storage runs."
    try:
        yield Finding("lake", OK, _within(LAKE, place.check))
    except PipelineError as error:
        yield Finding("lake", FAILED, error.message, error.next_step or look)
        return
    except TimeoutError as error:
        yield Finding("lake", FAILED, f"The lake at {place.describe()} gives {error}.", look)
        return
    if (free := place.free_space()) is not None:
        yield _room("lake", place.describe(), free, "or set LAKE_URL to a larger place")


def _work_folder() -> Iterator[Finding]:
    """Where files lie on their way into the lake."""
    folder = settings.WORK_DIR
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        yield Finding("work folder", FAILED, f"{there} may not be written.", f"Let the user who runs the workers write to {there}.")
        return
    yield _room("work folder", str(folder), shutil.disk_usage(there).free, "for files on their way into the lake lie there")


def _room(name: str, place: str, free: int, why: str) -> Finding:
    left = f"{free / 2**30:,.1f} GiB are left at {place}."
    if free < ROOM_WARNING:
        return Finding(name, FAILED if free < ROOM_FAILED else WARNING, left, f"Free some space there, {why}.")
    return Finding(name, OK, left)


def _warehouse(alias: str, dsn: str) -> Iterator[Finding]:
    name = f"warehouse {alias}"
    setting = "WAREHOUSE_URL" if alias == "default" else f"{alias} in WAREHOUSES"
    try:
        engine = warehouse.engine(dsn)
    except SetupError:
        yield Finding(name, FAILED, f"Its address does not begin with {' or '.join(f'{one}://' for one in warehouse.ENGINES)}", f"Correct {setting}.")
        return
    if engine is mysql:
        yield from _maria(name, dsn)
        return
    try:
        # before the driver sees it: of a wrong address it prints pieces, and one of them may be the password
        _ = urlsplit(dsn).port
        psycopg2.extensions.parse_dsn(dsn)
    except (ValueError, psycopg2.ProgrammingError):
        step = "Write it as postgres://user:password@host:port/name, other signs in the password as %40 and the like."
        yield Finding(name, FAILED, "Its address is not one that PostgreSQL understands.", step)
        return
    try:
        version, may_create = _within(WAREHOUSE, lambda: _warehouse_rights(dsn))
    except PipelineError as error:
        yield Finding(name, FAILED, _in_a_line(error), error.next_step or _LOOK_AT_WAREHOUSE)
    except (psycopg2.Error, TimeoutError) as error:
        yield Finding(name, FAILED, f"It does not answer: {_in_a_line(error)}", _LOOK_AT_WAREHOUSE)
    else:
        if may_create:
            yield Finding(name, OK, f"PostgreSQL {version} answers, and tables may be made in the schema {postgres.SCHEMA}.")
        else:
            step = f"As its owner: CREATE SCHEMA IF NOT EXISTS {postgres.SCHEMA}; GRANT CREATE, USAGE ON SCHEMA {postgres.SCHEMA} TO its user."
            yield Finding(name, FAILED, f"The user may not make tables in the schema {postgres.SCHEMA}.", step)


def _maria(name: str, dsn: str) -> Iterator[Finding]:
    try:
        yield Finding(name, OK, _within(WAREHOUSE, lambda: mysql.examine(dsn)))
    except PipelineError as error:
        yield Finding(name, FAILED, _in_a_line(error), error.next_step or _LOOK_AT_WAREHOUSE)
    except (TimeoutError, ValueError) as error:
        yield Finding(name, FAILED, f"It does not answer: {_in_a_line(error)}", _LOOK_AT_WAREHOUSE)


def _warehouse_rights(dsn: str) -> tuple[str, bool]:
    """(the server's version, whether our user may make tables in the schema of city data, or that schema itself)."""
    with closing(postgres.connect(dsn)) as fresh, fresh.cursor() as cursor:
        cursor.execute(
            "select current_setting('server_version'), coalesce("
            "(select has_schema_privilege(oid, 'create') from pg_namespace where nspname = %s),"
            " has_database_privilege(current_database(), 'create'))",
            [postgres.SCHEMA],
        )
        version, may_create = cursor.fetchone()
        return version.split()[0], may_create


def _time_zones() -> Iterator[Finding]:
    """The zones that providers and pipelines name, which this machine must know too."""
    named = _from_database(
        lambda: {(model.__name__.lower(), *row) for model in (Provider, Pipeline) for row in model.objects.values_list("slug", "time_zone")}
    )
    unknown = []
    for kind, slug, zone in sorted(named):
        try:
            clock.zone(zone)
        except ValueError:
            unknown.append(f"{kind} {slug} ({zone})")
    if unknown:
        yield Finding(
            "time zones",
            FAILED,
            f"This machine does not know the time zone of {', '.join(unknown)}.",
            "Install tzdata, or correct the zone.",
        )
    else:
        yield Finding("time zones", OK, f"This machine knows the {len({zone for *_, zone in named})} zones of providers and pipelines.")


# what moves


def _queue(depth: Callable[[], int]) -> Iterator[Finding]:
    in_database = "orm" in settings.Q_CLUSTER
    try:
        waiting = _from_database(depth) if in_database else _within(QUEUE, depth)
    except DatabaseError:
        raise
    except Exception as error:  # noqa: BLE001  each broker has its own errors
        yield Finding("queue", FAILED, f"It does not answer: {_in_a_line(error)}", "Look at QUEUE_URL, and whether that server runs.")
        return
    oldest = _from_database(_oldest_message) if in_database else None
    age = (timezone.now() - oldest).total_seconds() if oldest else 0.0
    told = f"{waiting} messages wait{f', the oldest for {_span(age)}' if oldest else ''}."
    if age > LONG_WAIT:
        yield Finding("queue", WARNING, told, "See on the page of workers whether they are busy, or silent; raise WORKERS if they are busy.")
    else:
        yield Finding("queue", OK, told)


def _oldest_message() -> datetime | None:
    # a message that a worker holds is locked until later
    return OrmQ.objects.filter(lock__lte=timezone.now()).aggregate(oldest=Min("lock"))["oldest"]


def _workers(age: Callable[[str], float | None]) -> Iterator[Finding]:
    silent = _from_database(lambda: age("canary"))
    if silent is not None and silent < SILENCE:
        yield Finding("workers", OK, f"They answered {_span(silent)} ago.")
        return
    yield _silence("workers", f"Nobody is listening: the workers {_last(silent, 'answered')}")


def _schedule(age: Callable[[str], float | None]) -> Iterator[Finding]:
    silent = _from_database(lambda: age("tick"))
    if silent is None or silent >= SILENCE:
        yield _silence("schedule", f"Nobody plans what is owed: the schedule {_last(silent, 'ticked')}")
        return
    details = _from_database(lambda: Pulse.objects.filter(name="tick").values_list("details", flat=True).first()) or {}
    if broken := details.get("broken", 0):
        yield Finding(
            "schedule",
            WARNING,
            f"It ticks, but {broken} pipelines can't be planned.",
            "The log of `up` names them: correct their schedules.",
        )
    else:
        yield Finding("schedule", OK, f"It ticked {_span(silent)} ago.")


def _silence(name: str, told: str) -> Finding:
    """Silence is a failure as soon as somebody waits for an answer."""
    due = _from_database(lambda: ScheduleBlock.objects.due(Now()).filter(pipeline__provider__is_active=True, pipeline__is_paused=False).count())
    owed = f", and {due} blocks are due" if due else "; nothing is due"
    return Finding(name, FAILED if due else WARNING, f"{told}{owed}.", START)


def _last(silent: float | None, verb: str) -> str:
    return f"never {verb}" if silent is None else f"last {verb} {_span(silent)} ago"


def _span(seconds: float) -> str:
    """Seconds as people say them."""
    for size, word in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {word}s"
    return f"{max(seconds, 0):.0f} seconds"


# the outside


def _providers(connect: Callable[[Provider], Connector], columns: Callable[[Pipeline], tuple[Column, ...]], network: bool) -> Iterator[Finding]:
    """Each provider: are its secrets there, and does it answer? Then each portal that does: would it take what is published there?"""
    everyone = _from_database(lambda: list(Provider.objects.order_by("slug")))
    if not everyone:
        yield Finding("providers", OK, "There are none yet.", "Make one in the admin, or: python3 manage.py import_config FILE")
    ready: dict[str, tuple[Provider, Connector]] = {}
    for provider in everyone:
        name = f"provider {provider.slug}"
        if not provider.is_active:
            yield Finding(name, SKIPPED, "It is switched off.")
        elif faults := list(_secret_faults(provider)):
            yield from faults
        elif not network:
            yield Finding(name, SKIPPED, "Its secrets can be read; it was not asked, because of --no-network.")
        else:
            try:
                ready[name] = (provider, _hurried(connect(provider)))
            except SetupError as error:
                yield Finding(name, FAILED, error.message, error.next_step)
    names = list(ready)
    for some in (names[first : first + AT_ONCE] for first in range(0, len(names), AT_ONCE)):
        answers = _all_within(PROVIDER, {name: ready[name][1].test for name in some})
        for name in some:
            findings = list(_asked(name, lambda name=name, answer=answers[name]: _provider(name, ready[name][0], answer)))
            yield from findings
            if any(finding.status == FAILED for finding in findings):
                del ready[name]
    yield from _publications(connect, columns, {provider.pk for provider, _ in ready.values()})


def _publications(
    connect: Callable[[Provider], Connector], columns: Callable[[Pipeline], tuple[Column, ...]], portals: set[int]
) -> Iterator[Finding]:
    """Each pipeline that publishes to one of these portals: what the publish stage asks before it sends a row.

    A portal that failed is not asked again for each of its pipelines: many tries with a wrong password lock an account.
    """
    publishing = _from_database(
        lambda: [
            pipeline
            for pipeline in Pipeline.objects.filter(portal__in=portals)
            .select_related("portal", "dataset")
            .prefetch_related("dataset__columns")  # here, for the questions are asked on threads, which have no database
            .order_by("slug")
            if Stage.PUBLISH in pipeline.stages
        ]
    )

    def ask(pipeline: Pipeline) -> str:
        ours = columns(pipeline)
        portal = _hurried(connect(pipeline.portal))
        portal.preflight(pipeline.portal_resource, columns=ours, key=public_key(pipeline))
        what = f"{len(ours)} columns" if ours else "what will be loaded (nothing is yet)"
        return f"{pipeline.portal.title} would take {what} as {pipeline.portal_resource}"

    for some in (publishing[first : first + AT_ONCE] for first in range(0, len(publishing), AT_ONCE)):
        named = {f"publication of {pipeline.slug}": pipeline for pipeline in some}
        answers = _all_within(PROVIDER, {name: lambda pipeline=pipeline: ask(pipeline) for name, pipeline in named.items()})
        for name, pipeline in named.items():
            yield from _asked(name, lambda name=name, portal=pipeline.portal, answer=answers[name]: _provider(name, portal, answer))


def _secret_faults(provider: Provider) -> Iterator[Finding]:
    for name, stored in sorted(provider.secrets.items()):
        where = f"provider {provider.slug}"
        if not stored:
            yield Finding(where, FAILED, f"Its secret {name} was never entered here.", "Enter it in the admin, or import it as env:NAME.")
            continue
        try:
            secrets.reveal(stored)
        except SetupError as error:
            yield Finding(where, FAILED, f"Its secret {name} can't be read, for {error.message}", error.next_step)


def _hurried(connector: Connector) -> Connector:
    """The same connector, with a door that gives up early: one try, so that a dead host is known within the time-out."""
    # a test may ask twice; both end a little earlier than we stop waiting, so that its own words are heard
    connector.door.deadline = min(connector.door.deadline, 0.4 * PROVIDER)
    connector.door.attempts = 1
    return connector


def _provider(name: str, provider: Provider, answer: Callable[[], str]) -> Iterator[Finding]:
    call = f"Ask {provider.contact}." if provider.contact else f"Check the address of provider {provider.slug}, and whether it is up."
    try:
        told = answer()
    except PipelineError as error:
        yield Finding(name, FAILED, _sentence(error.message), error.next_step or call)
    except TimeoutError as error:
        yield Finding(name, FAILED, f"It gave {error}.", call)
    else:
        if provider.blocked_until and provider.blocked_until > timezone.now():
            until = f"{provider.blocked_until.astimezone(clock.zone(settings.TIME_ZONE)):%a %H:%M}"
            yield Finding(name, WARNING, f"{_sentence(told)} But it asked us to wait until {until}.")
        else:
            yield Finding(name, OK, _sentence(told))


def _after_loads() -> Iterator[Finding]:
    """The steps after loads: are their secrets and warehouses there, and has one failed that nobody looked at?"""
    steps = _from_database(lambda: list(AfterStep.objects.filter(is_active=True).select_related("pipeline")))
    failed = _from_database(lambda: list(after.failed().order_by("pk").values_list("step__pipeline__slug", flat=True)))
    for step in steps:
        for error in after.faults(step):
            words = f"The step {step} of {step.pipeline.slug} can't be done: {_sentence(error.message)}"
            yield Finding("after loads", FAILED, words, error.next_step)
    if failed:
        named = ", ".join(dict.fromkeys(failed))
        words = f"{len(failed)} {'step' if len(failed) == 1 else 'steps'} failed the last time ({named})."
        yield Finding("after loads", WARNING, words, "See why, and do them again, with: python3 manage.py after")
    elif steps:
        yield Finding("after loads", OK, f"{len(steps)} steps are done after loads; none waits for a person.")
    else:
        yield Finding("after loads", OK, "No pipeline has a step after its loads.")


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
