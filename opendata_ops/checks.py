"""System checks: what must be so for the promises to hold. `manage.py check` names what is not, with the remedy.

The figures for the queue come from measured failures of django-q2, not from its documentation.
"""

from pathlib import Path

from cryptography.fernet import Fernet
from django.conf import settings
from django.core.checks import Error
from django.db import OperationalError, connections

from catalog import lake
from pipelines import clock
from pipelines.errors import SetupError

OLDEST_POSTGRES = 16
#: Amazon refuses to hide a message for longer than twelve hours.
SQS_LONGEST = 43_200


def _error(number: int, message: str, hint: str) -> Error:
    return Error(message, hint=hint, id=f"opendata_ops.E{number:03}")


def _clusters() -> dict[str, dict]:
    """The settings of each cluster as django-q2 puts them together, by name."""
    main = {key: value for key, value in settings.Q_CLUSTER.items() if key != "ALT_CLUSTERS"}
    others = settings.Q_CLUSTER.get("ALT_CLUSTERS") or {}
    return {main.get("name", "default"): main, **{name: {**main, **other} for name, other in others.items()}}


def queue_is_safe(app_configs=None, **kwargs) -> list[Error]:
    """A queue that loses nothing, starts nothing twice on its own, and leaves time and retries to blocks.py."""
    found = []
    for name, conf in _clusters().items():
        queue = f"Q_CLUSTER {name!r}: "
        timeout, retry = conf.get("timeout") or 0, conf.get("retry", 60)
        if conf.get("sqs") is not None:
            if not timeout < retry <= SQS_LONGEST:
                hint = f"Amazon hides a message for {SQS_LONGEST} s at most: set retry between the timeout and that."
                found.append(_error(1, f"{queue}retry {retry} does not fit SQS with timeout {timeout}.", hint))
        elif retry < 3 * timeout:
            hint = "A message's clock begins when it is fetched ahead, not when it is worked on: set retry to three times the timeout."
            found.append(_error(1, f"{queue}retry {retry} is less than three times timeout {timeout}.", hint))
        if not conf.get("workers") or conf.get("queue_limit", conf["workers"] ** 2) > conf["workers"]:
            hint = "What is fetched ahead waits behind long work, and a stop waits for all of it: set queue_limit to the number of workers."
            found.append(_error(2, f"{queue}queue_limit is more than workers.", hint))
        if conf.get("max_attempts", 0) != 1:
            hint = "Attempts are counted on the block, which also counts those that died: set max_attempts to 1."
            found.append(_error(3, f"{queue}max_attempts is not 1.", hint))
        if conf.get("ack_failures", False) is not True:
            found.append(_error(4, f"{queue}ack_failures is off.", "A message that failed comes back for ever: set ack_failures to True."))
        if conf.get("catch_up", True) is not False:
            found.append(_error(5, f"{queue}catch_up is on.", "The tick plans what is owed: set catch_up to False."))
        if timeout <= settings.MAX_STAGE_SECONDS:
            hint = "The queue would kill a worker whose stage is still within its deadline: set timeout above MAX_STAGE_SECONDS."
            found.append(_error(6, f"{queue}timeout {timeout} is not above MAX_STAGE_SECONDS {settings.MAX_STAGE_SECONDS}.", hint))
        if conf.get("bulk", 1) != 1:
            found.append(_error(7, f"{queue}bulk is not 1.", "More than one message at a time is fetched ahead: set bulk to 1."))
        if conf.get("scheduler", True) is not False:
            hint = "One bad row of its schedules stops all of them, and a row may name any function: set scheduler to False; `tick` plans."
            found.append(_error(8, f"{queue}scheduler is on.", hint))
    return found


def engine_is_postgres(app_configs=None, **kwargs) -> list[Error]:
    engine = settings.DATABASES["default"].get("ENGINE", "")
    if engine == "django.db.backends.postgresql":
        return []
    hint = "Set DATABASE_URL=postgres://user:password@host/name, or leave it empty for the embedded server."
    return [_error(9, f"The control database is {engine or 'not set'}, not PostgreSQL.", hint)]


def time_zone_is_known(app_configs=None, **kwargs) -> list[Error]:
    try:
        clock.zone(settings.TIME_ZONE)
    except ValueError as error:
        return [_error(10, f"TIME_ZONE: {error}", "Names are in the tz database; on a bare system install the package tzdata.")]
    return []


def lake_is_an_address(app_configs=None, **kwargs) -> list[Error]:
    hint = "Set LAKE_URL to a full path like /srv/lake, or to s3://bucket/prefix."
    try:
        place = lake.at(settings.LAKE_URL)
    except SetupError as error:
        return [_error(11, error.message, hint)]
    if isinstance(place, lake.FolderLake) and not Path(settings.LAKE_URL).is_absolute():
        return [_error(11, f"LAKE_URL={settings.LAKE_URL} means another folder for each process that starts elsewhere.", hint)]
    return []


def fernet_keys_are_keys(app_configs=None, **kwargs) -> list[Error]:
    hint = "Make one with: python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'"
    if not settings.FERNET_KEYS:
        return [_error(12, "FERNET_KEYS is empty.", hint)]
    found = []
    for number, key in enumerate(settings.FERNET_KEYS, 1):
        try:
            Fernet(key)
        except ValueError:
            found.append(_error(12, f"Key {number} of FERNET_KEYS is not a Fernet key.", hint))
    return found


def lease_outlives_a_missed_beat(app_configs=None, **kwargs) -> list[Error]:
    if settings.LEASE_SECONDS > 3 * settings.HEARTBEAT_SECONDS:
        return []
    hint = "A worker that was slow for a moment would lose its block: make LEASE_SECONDS more than three times HEARTBEAT_SECONDS."
    return [_error(13, f"LEASE_SECONDS {settings.LEASE_SECONDS} is too short for a beat every {settings.HEARTBEAT_SECONDS} s.", hint)]


def warehouse_has_a_default(app_configs=None, **kwargs) -> list[Error]:
    if settings.WAREHOUSES.get("default"):
        return []
    return [_error(14, "WAREHOUSES has no default.", "Set WAREHOUSE_URL, or leave it empty for the control database.")]


SETTINGS = (
    queue_is_safe,
    engine_is_postgres,
    time_zone_is_known,
    lake_is_an_address,
    fernet_keys_are_keys,
    lease_outlives_a_missed_beat,
    warehouse_has_a_default,
)


def database_server(app_configs=None, databases=None, **kwargs) -> list[Error]:
    """The server answers and is new enough: the loader needs what PostgreSQL 16 brought (pg_input_is_valid)."""
    found = []
    for alias in databases or []:
        connection = connections[alias]
        if connection.vendor != "postgresql":
            continue  # engine_is_postgres has said so
        try:
            version = connection.pg_version
        except OperationalError as error:
            hint = "Look at DATABASE_URL, and whether the server runs."
            found.append(_error(16, f"The database {alias!r} does not answer: {str(error).splitlines()[0]}", hint))
            continue
        if version < OLDEST_POSTGRES * 10_000:
            hint = f"Upgrade the server to {OLDEST_POSTGRES} or later, or leave DATABASE_URL empty for the embedded one."
            found.append(_error(15, f"The database {alias!r} is PostgreSQL {version // 10_000}.", hint))
    return found
