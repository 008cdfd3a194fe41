"""The doctor: every fault is found and named with its remedy, none hides another, nothing hangs, no secret is told."""

import json
import threading
from datetime import timedelta
from io import StringIO
from types import SimpleNamespace

import psycopg2
import pytest
from django.core.management import call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone
from django_q.models import OrmQ

from catalog.models import Dataset
from opendata_ops.sandbox.soda import Portal
from opendata_ops.sandbox.tables import Dataset as SandboxTable
from pipelines import planner, secrets
from pipelines.connectors.base import Column
from pipelines.errors import SetupError, TransientError
from pipelines.models import AfterRun, AfterStep, Pipeline, Provider, Pulse, Run, ScheduleBlock
from pipelines.stages import outside
from pipelines.stages.offer import public_columns
from pipelines.upkeep import doctor
from tests.mariadb import mariadb, mariadb_server

__all__ = ["mariadb", "mariadb_server"]
pytestmark = pytest.mark.django_db
HIDDEN = "hunter2-do-not-show"


@pytest.fixture(autouse=True)
def healthy(settings, tmp_path):
    """An installation in which nothing fails: keys of its own, nothing from this machine's `var`."""
    folder = tmp_path / "var" / "secrets"
    folder.mkdir(parents=True)
    for name in ("secret_key", "fernet_keys"):
        (folder / name).write_text("x")
        (folder / name).chmod(0o600)
    settings.VAR_DIR, settings.WORK_DIR = tmp_path / "var", tmp_path / "var" / "work"
    settings.STATIC_ROOT = tmp_path / "static"


def examined(**handed):
    """All findings, by name; of several with one name the worst."""
    usual = {"connect": outside.connector, "columns": public_columns, "queue_depth": planner.queue_depth, "pulse_age": planner.age}
    worst = {}
    for finding in doctor.examine(**{**usual, **handed}):
        order = [doctor.OK, doctor.SKIPPED, doctor.WARNING, doctor.FAILED]
        if finding.name not in worst or order.index(finding.status) > order.index(worst[finding.name].status):
            worst[finding.name] = finding
    return worst


def beat(name, ago=timedelta(), **details):
    Pulse.objects.update_or_create(name=name, defaults={"at": timezone.now() - ago, "details": details})


def test_a_step_after_loads_that_cannot_be_done_or_has_failed_is_named(due_block, settings):
    assert examined(network=False)["after loads"].message == "No pipeline has a step after its loads."
    one = due_block.pipeline
    hook = AfterStep.objects.create(pipeline=one, kind="notify", secret="env:HOOK_THAT_NOBODY_SET")
    view = AfterStep.objects.create(pipeline=one, kind="refresh", target="service_requests")
    told = examined(network=False)["after loads"]
    assert told.status == doctor.FAILED and "HOOK_THAT_NOBODY_SET" in told.message and one.slug in told.message
    AfterStep.objects.filter(pk=hook.pk).update(is_active=False)
    assert examined(network=False)["after loads"].status == doctor.OK
    now = timezone.now()
    run = Run.objects.create(block=due_block, stage="load", state="done", attempt=1, fence=1, trigger="schedule", holder="h", finished_at=now)
    AfterRun.objects.create(step=view, run=run, state="failed", finished_at=now)
    told = examined(network=False)["after loads"]
    assert told.status == doctor.WARNING and told.message == "1 step failed the last time (d)." and "manage.py after" in told.next_step


@pytest.fixture
def due_block():
    provider = Provider.objects.create(slug="p", title="P", kind="csv_file", base_url="/nowhere")
    dataset = Dataset.objects.create(slug="d", title="D")
    pipeline = Pipeline.objects.create(slug="d", title="D", provider=provider, dataset=dataset, resource="x", table="d")
    start = timezone.now() - timedelta(days=2)
    return ScheduleBlock.objects.create(
        pipeline=pipeline, starts_at=start, ends_at=start + timedelta(days=1), due_at=start + timedelta(days=1), stages=["load"]
    )


def provider(slug="la", **values):
    return Provider.objects.create(**{"slug": slug, "title": slug, "kind": "socrata", "base_url": "https://127.0.0.1:1", **values})


def answering(test):
    """Hands the doctor a connector whose `test` is this function."""
    return lambda provider: SimpleNamespace(test=test, door=SimpleNamespace(deadline=600, attempts=4))


# a house in order


def test_nothing_fails_in_a_house_in_order(tmp_path):
    beat("canary")
    beat("tick")
    provider("files", kind="csv_file", base_url=str(tmp_path))
    found = examined()
    assert {name for name, finding in found.items() if finding.status == doctor.FAILED} == set()
    assert found["provider files"].status == found["workers"].status == found["schedule"].status == doctor.OK
    assert {"settings", "keys", "outbound allow-list", "time zone", "static files", "database", "clock", "migrations", "lake",
            "work folder", "warehouse default", "time zones", "queue", "workers", "schedule"} <= set(found)  # fmt: skip


def test_whoever_is_not_well_is_given_a_next_step(due_block):
    found = examined()
    assert [finding for finding in found.values() if finding.status in (doctor.WARNING, doctor.FAILED) and not finding.next_step] == []


# the database


def test_without_a_database_the_doctor_says_so_and_asks_the_rest(monkeypatch):
    def refuse(**parameters):
        raise psycopg2.OperationalError(f'connection to server at "db" failed for postgres://ana:{HIDDEN}@db')

    monkeypatch.setattr(doctor.psycopg2, "connect", refuse)
    found = examined()
    assert found["database"].status == doctor.FAILED
    assert "does not answer" in found["database"].message
    assert found["lake"].status == doctor.OK
    assert found["providers"].status == found["queue"].status == doctor.SKIPPED
    assert HIDDEN not in str(found)


def test_a_database_that_never_answers_does_not_hold_the_doctor(monkeypatch):
    monkeypatch.setattr(doctor, "DATABASE", 0.1)
    monkeypatch.setattr(doctor, "_version_and_time", threading.Event().wait)
    assert "no answer within" in examined()["database"].message


def test_migrations_that_are_not_applied_are_named_and_the_tables_left_alone():
    [newest] = MigrationLoader(connection).graph.leaf_nodes("pipelines")
    MigrationRecorder(connection).record_unapplied(*newest)
    found = examined()
    assert found["migrations"].status == doctor.FAILED
    assert ".".join(newest) in found["migrations"].message
    assert found["migrations"].next_step == "python3 manage.py migrate"
    assert found["queue"].status == doctor.SKIPPED


@pytest.mark.parametrize(("skew", "status"), [(0.5, doctor.OK), (-10, doctor.WARNING), (3600, doctor.FAILED)])
def test_a_clock_that_differs_is_seen(monkeypatch, skew, status):
    told = doctor._version_and_time
    monkeypatch.setattr(doctor, "_version_and_time", lambda: (told()[0], told()[1] + skew))
    assert examined()["clock"].status == status


# where things are kept


def test_a_lake_that_cannot_be_written_is_found(settings, tmp_path):
    (tmp_path / "file").write_text("")
    settings.LAKE_URL = str(tmp_path / "file" / "lake")
    found = examined()["lake"]
    assert found.status == doctor.FAILED
    assert "LAKE_URL" in found.next_step


def test_a_disk_that_fills_up_is_told_before_it_is_full(monkeypatch):
    monkeypatch.setattr(doctor, "ROOM_WARNING", 1 << 60)
    assert examined()["lake"].status == doctor.WARNING
    monkeypatch.setattr(doctor, "ROOM_FAILED", 1 << 60)
    assert examined()["work folder"].status == doctor.FAILED


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgres://u:{HIDDEN}@127.0.0.1:1/x",
        f"postgres://u:{HIDDEN}@h:port/x",
        f"u:{HIDDEN}@h",
        f"postgres://u:{HIDDEN}",
        f"postgres://h/x?pasword={HIDDEN}",
        f"postgres://u:x@{HIDDEN}@127.0.0.1:1/x",
        f"mysql://u:{HIDDEN}@127.0.0.1:1/x",
        f"mysql://u:{HIDDEN}@h:port/x",
        f"sqlite://u:{HIDDEN}/x",
    ],
)
def test_a_warehouse_that_does_not_answer_is_told_without_its_password(settings, dsn):
    settings.WAREHOUSES = {**settings.WAREHOUSES, "second": dsn}
    found = examined()
    assert found["warehouse default"].status == doctor.OK
    assert found["warehouse second"].status == doctor.FAILED
    assert HIDDEN not in str(found)


@pytest.mark.needs("mariadb")
def test_a_mariadb_warehouse_is_tried_with_a_table(settings, mariadb):
    settings.WAREHOUSES = {**settings.WAREHOUSES, "second": mariadb}
    found = examined()["warehouse second"]
    assert found.status == doctor.OK and "tables may be made" in str(found)


def test_a_warehouse_user_who_may_not_make_tables_is_told_what_to_grant(settings, monkeypatch):
    monkeypatch.setattr(doctor, "_warehouse_rights", lambda dsn: ("16.1", False))
    found = examined()["warehouse default"]
    assert found.status == doctor.FAILED
    assert "GRANT CREATE" in found.next_step


# the program


def test_keys_that_others_may_read_are_a_failure(settings):
    (settings.VAR_DIR / "secrets" / "fernet_keys").chmod(0o644)
    found = examined()["keys"]
    assert found.status == doctor.FAILED
    assert found.next_step.startswith("chmod 600")


def test_a_setting_that_a_system_check_refuses_is_told_with_its_remedy(settings):
    settings.Q_CLUSTER = {**settings.Q_CLUSTER, "max_attempts": 5}
    found = examined()["settings"]
    assert found.status == doctor.FAILED
    assert "set max_attempts to 1" in found.next_step


@pytest.mark.parametrize(
    ("entries", "status"),
    [
        ([], doctor.OK),
        (["gis.internal:8443", "10.20.0.0/16"], doctor.OK),
        (["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"], doctor.WARNING),
        (["0.0.0.0/0"], doctor.FAILED),
        (["http://gis.internal"], doctor.FAILED),
    ],
)
def test_an_allow_list_that_opens_too_much_or_makes_no_sense_is_seen(settings, entries, status):
    settings.OUTBOUND_ALLOW = entries
    assert examined()["outbound allow-list"].status == status


def test_static_files_that_changed_since_they_were_collected_are_seen(settings, tmp_path):
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"},
    }
    settings.STATICFILES_DIRS = [tmp_path / "source"]
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.css").write_text("a {}")
    assert "never collected" in examined()["static files"].message
    call_command("collectstatic", interactive=False, verbosity=0)
    assert examined()["static files"].status == doctor.OK
    (tmp_path / "source" / "b.css").write_text("b {}")
    assert "b.css" in examined()["static files"].message


def test_one_question_that_breaks_hides_no_other(monkeypatch):
    def break_down():
        raise RuntimeError(f"password={HIDDEN}")

    monkeypatch.setattr(doctor, "_keys", break_down)
    found = examined()
    assert found["keys"].status == doctor.FAILED
    assert found["lake"].status == doctor.OK
    assert HIDDEN not in str(found)


# what moves


def test_silence_is_a_warning_while_nothing_is_due_and_a_failure_once_something_is(request):
    assert (examined()["workers"].status, examined()["schedule"].status) == (doctor.WARNING, doctor.WARNING)
    request.getfixturevalue("due_block")
    beat("canary", timedelta(hours=3))
    found = examined()
    assert (found["workers"].status, found["schedule"].status) == (doctor.FAILED, doctor.FAILED)
    assert found["workers"].message == "Nobody is listening: the workers last answered 3 hours ago, and 1 blocks are due."
    assert "python3 manage.py up" in found["workers"].next_step


def test_a_pipeline_that_cannot_be_planned_is_told():
    beat("tick", broken=2)
    assert examined()["schedule"].message == "It ticks, but 2 pipelines can't be planned."


def test_a_message_that_waits_too_long_is_told_with_its_age():
    OrmQ.objects.create(key="ops", payload="x", lock=timezone.now() - timedelta(hours=5))
    found = examined()["queue"]
    assert found.status == doctor.WARNING
    assert "5 hours" in found.message


def test_a_queue_that_is_down_is_told(settings):
    settings.Q_CLUSTER = {
        **{name: value for name, value in settings.Q_CLUSTER.items() if name != "orm"},
        "redis": "redis://127.0.0.1:1",
    }

    def refuse():
        raise ConnectionError(f"Error 111 connecting to redis://:{HIDDEN}@127.0.0.1:1")

    found = examined(queue_depth=refuse)
    assert found["queue"].status == doctor.FAILED
    assert "QUEUE_URL" in found["queue"].next_step
    assert HIDDEN not in str(found)


# providers


def test_a_provider_is_asked_through_the_door(settings):
    provider()
    settings.OUTBOUND_ALLOW = []
    refused = examined()["provider la"]
    assert refused.status == doctor.FAILED
    assert "127.0.0.1" in refused.message
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    assert examined()["provider la"].message != refused.message


def test_a_secret_that_is_missing_locked_or_never_entered_is_found_without_asking_the_network(monkeypatch):
    monkeypatch.delenv("NO_SUCH_NAME", raising=False)
    provider("a", secrets={"app_token": "env:NO_SUCH_NAME"})
    provider("b", secrets={"password": ""})
    provider("c", secrets={"password": "fernet:gAAAAABsomebodyelses"})
    provider("d", secrets={"password": secrets.seal(HIDDEN)})
    found = examined(network=False)
    assert "no NO_SUCH_NAME" in found["provider a"].message
    assert "never entered" in found["provider b"].message
    assert "none of FERNET_KEYS opens it" in found["provider c"].message
    assert found["provider d"].status == doctor.SKIPPED
    assert HIDDEN not in str(found)


def test_a_provider_that_is_switched_off_is_not_asked():
    provider(is_active=False)

    def connect(provider):
        raise AssertionError("it was asked")

    assert examined(connect=connect)["provider la"].status == doctor.SKIPPED


def test_a_provider_that_never_answers_holds_up_nobody(monkeypatch):
    monkeypatch.setattr(doctor, "PROVIDER", 0.1)
    for number in range(doctor.AT_ONCE + 2):
        provider(f"p{number}", contact="Ana, 555-0100")
    found = examined(connect=answering(threading.Event().wait))
    assert {found[f"provider p{number}"].message for number in range(doctor.AT_ONCE + 2)} == {"It gave no answer within 0 seconds."}
    assert found["provider p0"].next_step == "Ask Ana, 555-0100."


@pytest.mark.parametrize("error", [TransientError("It said 503"), SetupError("It said 403", next_step="Enter the token anew.")])
def test_what_a_provider_says_is_told_in_its_words(error):
    provider(secrets={"password": secrets.seal(HIDDEN)})

    def refuse():
        raise type(error)(f"{error.message} to {HIDDEN}", next_step=error.next_step)

    found = examined(connect=answering(refuse))["provider la"]
    assert found.status == doctor.FAILED
    assert found.message.startswith(error.message)
    assert found.next_step
    assert HIDDEN not in str(found)


# what is published


@pytest.fixture
def portal(settings):
    """A portal with one dataset that knows its rows by `id`, and takes the password of `publishing`."""
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    with Portal(SandboxTable("bbbb-0001", "Target", [("id", "text"), ("name", "text")], key="id"), accounts={"u": HIDDEN}) as portal:
        yield portal


def publishing(portal, password=HIDDEN, slugs=("trees",), resource="bbbb-0001", **values):
    """Pipelines that publish to the portal; what they publish is handed to the doctor."""
    source = provider("files", kind="csv_file", base_url="/", is_active=False)
    there = provider("portal", base_url=portal.url, parameters={"user": "u"}, secrets={"password": secrets.seal(password)})
    for slug in slugs:
        Pipeline.objects.create(
            slug=slug, title=slug, provider=source, dataset=Dataset.objects.create(slug=slug, title=slug), resource="x", table=slug, key=["id"],
            portal=there, portal_resource=resource, stages=["extract", "load", "publish"], **values
        )  # fmt: skip


def views(portal):
    return [asked for asked in portal.requests if asked.path.startswith("/api/views/")]


def test_a_portal_that_would_take_what_is_published_is_well(portal):
    publishing(portal)
    found = examined(columns=lambda pipeline: (Column("id"), Column("name")))
    assert found["provider portal"].message.endswith("it takes the user name and password.")
    told = found["publication of trees"]
    assert (told.status, told.message) == (doctor.OK, "portal would take 2 columns as bbbb-0001.")


def test_a_wrong_password_is_told_once_however_much_is_published_there(portal):
    publishing(portal, "guessed", ("trees", "requests", "permits"))
    found = examined()
    told = found["provider portal"]
    assert told.status == doctor.FAILED and "401: Invalid username or password" in told.message
    assert told.next_step == "Check the user name and password of provider portal."
    assert not [name for name in found if name.startswith("publication of")]
    # many tries lock an account
    assert len(views(portal)) == 1
    assert HIDDEN not in str(found) and "guessed" not in str(found)


def test_a_wrong_password_is_found_by_what_is_published_where_the_catalog_lists_nothing(portal):
    portal.dataset("bbbb-0001").private = True
    publishing(portal, "guessed")
    found = examined()
    assert "the password could not be tried" in found["provider portal"].message
    told = found["publication of trees"]
    assert (told.status, told.next_step) == (doctor.FAILED, "Check the user name and password of provider portal.")


@pytest.mark.parametrize(
    ("columns", "key", "said"),
    [
        ((Column("id"), Column("height", "number")), "id", "height does not exist there"),
        ((Column("id"),), "", "has no row identifier"),
    ],
)
def test_what_a_portal_would_not_take_is_told_before_a_row_is_sent(portal, columns, key, said):
    portal.dataset("bbbb-0001").key = key
    publishing(portal)
    told = examined(columns=lambda pipeline: columns)["publication of trees"]
    assert told.status == doctor.FAILED and said in told.message and told.next_step
    assert {asked.method for asked in portal.requests} == {"GET"}


def test_before_the_first_load_the_portal_is_asked_for_its_row_identifier_all_the_same(portal):
    publishing(portal)
    assert "nothing is yet" in examined()["publication of trees"].message


def test_where_nothing_is_published_or_nobody_may_be_asked_no_publication_is_tried(portal):
    publishing(portal, slugs=())
    assert examined()["provider portal"].status == doctor.OK
    assert not [name for name in examined() if name.startswith("publication of")]
    Provider.objects.all().delete()
    Dataset.objects.all().delete()
    publishing(portal)
    portal.requests.clear()
    assert not [name for name in examined(network=False) if name.startswith("publication of")]
    assert portal.requests == []


# the command


def run(*words):
    out, err = StringIO(), StringIO()
    code = 0
    try:
        call_command("doctor", *words, stdout=out, stderr=err)
    except SystemExit as ended:
        code = ended.code
    return code, out.getvalue(), err.getvalue()


def test_the_command_exits_0_when_nothing_failed_and_1_when_something_did():
    code, out, _ = run("--no-network")
    assert code == 0
    assert "0 failed." in out
    provider(secrets={"app_token": "env:NO_SUCH_NAME"})
    code, out, _ = run("--no-network")
    assert code == 1
    assert "Next: Set NO_SUCH_NAME" in out


def test_json_is_one_object_on_stdout_and_words_go_to_stderr():
    _, out, err = run("--json", "--no-network")
    told = json.loads(out)
    assert told["ok"] is True
    assert set(told["checks"][0]) == {"name", "status", "message", "next_step"}
    assert "ok" in err
