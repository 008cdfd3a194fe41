"""Each check sees its setting broken, and names it by its id; with the settings as they are, none has anything to say."""

from types import SimpleNamespace

import pytest
from django.core.checks import Tags, run_checks
from django.core.checks.registry import registry
from django.db import OperationalError

from opendata_ops import checks


def ids(errors) -> set[str]:
    return {error.id.removeprefix("opendata_ops.") for error in errors if error.id.startswith("opendata_ops.")}


def test_the_settings_as_they_are_are_safe():
    assert [error for check in checks.SETTINGS for error in check()] == []


def test_every_check_is_registered():
    assert set(checks.SETTINGS) <= set(registry.registered_checks)
    assert checks.database_server in registry.registered_checks


@pytest.mark.parametrize(
    ("broken", "number"),
    [
        ({"retry": 60}, "E001"),
        ({"queue_limit": 50}, "E002"),
        ({"queue_limit": None}, "E002"),
        ({"workers": 0}, "E002"),
        ({"max_attempts": 0}, "E003"),
        ({"ack_failures": False}, "E004"),
        ({"catch_up": True}, "E005"),
        ({"timeout": 900}, "E006"),
        ({"timeout": None}, "E006"),
        ({"bulk": 5}, "E007"),
        ({"scheduler": True}, "E008"),
    ],
)
def test_an_unsafe_queue_is_refused(settings, broken, number):
    settings.Q_CLUSTER = {**settings.Q_CLUSTER, **broken}
    if broken.get("queue_limit", ...) is None:
        del settings.Q_CLUSTER["queue_limit"]  # django-q2 then takes workers squared
    assert ids(checks.queue_is_safe()) == {number}
    assert all(error.hint for error in checks.queue_is_safe())


@pytest.mark.parametrize("name", ["max_attempts", "ack_failures", "catch_up", "scheduler", "retry", "timeout"])
def test_what_is_not_said_is_judged_by_what_django_q_takes_for_it(settings, name):
    settings.Q_CLUSTER = {key: value for key, value in settings.Q_CLUSTER.items() if key != name}
    assert checks.queue_is_safe()


def test_a_second_cluster_is_held_to_the_same_rules(settings):
    settings.Q_CLUSTER = {**settings.Q_CLUSTER, "ALT_CLUSTERS": {"heavy": {"max_attempts": 3}}}
    (error,) = checks.queue_is_safe()
    assert ids([error]) == {"E003"} and "'heavy'" in error.msg


@pytest.mark.parametrize(("retry", "refused"), [(43_200, False), (43_201, True), (22_000, True)])
def test_a_queue_at_amazon_keeps_to_what_amazon_takes(settings, retry, refused):
    cluster = {key: value for key, value in settings.Q_CLUSTER.items() if key != "orm"}
    settings.Q_CLUSTER = {**cluster, "sqs": {"aws_region": "us-east-1"}, "timeout": 22_200, "retry": retry}
    assert ids(checks.queue_is_safe()) == ({"E001"} if refused else set())


@pytest.mark.parametrize(
    ("check", "name", "value", "number"),
    [
        (checks.engine_is_postgres, "DATABASES", {"default": {"ENGINE": "django.db.backends.sqlite3"}}, "E009"),
        (checks.time_zone_is_known, "TIME_ZONE", "America/Chicgo", "E010"),
        (checks.lake_is_an_address, "LAKE_URL", "http://lake", "E011"),
        (checks.lake_is_an_address, "LAKE_URL", "s3://bucket/../x", "E011"),
        (checks.lake_is_an_address, "LAKE_URL", "var/lake", "E011"),
        (checks.lake_is_an_address, "LAKE_URL", "", "E011"),
        (checks.fernet_keys_are_keys, "FERNET_KEYS", [], "E012"),
        (checks.fernet_keys_are_keys, "FERNET_KEYS", ["not-a-key"], "E012"),
        (checks.lease_outlives_a_missed_beat, "LEASE_SECONDS", 3, "E013"),
        (checks.warehouse_has_a_default, "WAREHOUSES", {"other": "postgres://x/y"}, "E014"),
    ],
)
@pytest.mark.filterwarnings("ignore:Overriding setting DATABASES")
def test_a_broken_setting_is_named(settings, check, name, value, number):
    if name == "TIME_ZONE":
        # Django itself would refuse to switch to it
        check_settings = SimpleNamespace(TIME_ZONE=value)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checks, "settings", check_settings)
            (error,) = check()
    else:
        setattr(settings, name, value)
        (error,) = check()
    assert ids([error]) == {number} and error.hint


def test_a_wrong_key_is_counted_and_never_shown(settings):
    settings.FERNET_KEYS = [settings.FERNET_KEYS[0], "hunter2"]
    (error,) = checks.fernet_keys_are_keys()
    assert "Key 2" in error.msg and "hunter2" not in f"{error.msg}{error.hint}"


class Unreachable:
    vendor = "postgresql"

    @property
    def pg_version(self):
        raise OperationalError("connection refused\nIs the server running?")


@pytest.mark.parametrize(
    ("connection", "found"),
    [
        (SimpleNamespace(vendor="postgresql", pg_version=150_009), {"E015"}),
        (SimpleNamespace(vendor="postgresql", pg_version=160_000), set()),
        (SimpleNamespace(vendor="sqlite"), set()),
        (Unreachable(), {"E016"}),
    ],
)
def test_a_server_that_is_too_old_or_away_is_named(monkeypatch, connection, found):
    monkeypatch.setattr(checks, "connections", {"default": connection})
    assert ids(checks.database_server(databases=["default"])) == found


@pytest.mark.django_db
def test_the_server_of_these_tests_will_do():
    assert run_checks(tags=[Tags.database], databases=["default"]) == []
