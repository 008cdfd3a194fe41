"""What the supervisor decides, and that what it starts never outlives it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from opendata_ops import bootstrap, database, supervisor

# ---------------------------------------------------------------- decisions


@pytest.mark.parametrize(
    "pulse_age, busy, watched, stalled",
    [
        (2, 0, 1000, False),  # answered just now
        (31, 0, 1000, True),  # silent, with both workers free
        (31, 1, 1000, True),  # silent, with one worker free
        (3600, 2, 3600, False),  # silent because every worker has a block in hand
        (3600, 0, 5, False),  # silent for long, but it could answer only since five seconds
        (None, 0, 29, False),  # never answered: still starting
        (None, 0, 31, True),  # never answered, and had the time
    ],
)
def test_silence_means_a_stall_only_while_an_answer_could_be_expected(pulse_age, busy, watched, stalled):
    assert supervisor.is_stalled(pulse_age, busy, workers=2, watched=watched) is stalled


def observe(watch: supervisor.PulseWatch, *, start: float, stop: float, age=None, busy: int = 0) -> bool:
    """One observation every sweep from `start` to `stop`; tells whether any of them found a stall."""
    found, now = False, start
    while now <= stop:
        found |= watch.stalled(now, age(now) if age else None, busy)
        now += supervisor.SWEEP_SECONDS
    return found


def test_a_cluster_that_never_answers_is_found_within_two_sweeps_of_the_limit():
    watch = supervisor.PulseWatch(workers=2)
    assert not observe(watch, start=0, stop=supervisor.STALL_SECONDS)
    assert observe(watch, start=supervisor.STALL_SECONDS + 3, stop=supervisor.STALL_SECONDS + 6)


def test_a_cluster_is_not_blamed_for_the_time_when_nobody_could_ask_it():
    """The database was away, or the laptop asleep: the canary is old, and the cluster is innocent."""
    watch = supervisor.PulseWatch(workers=2)
    assert not observe(watch, start=0, stop=20, age=lambda now: 1)
    assert not observe(watch, start=600, stop=620, age=lambda now: now - 20)


def test_a_new_cluster_and_a_busy_one_get_their_full_time():
    watch = supervisor.PulseWatch(workers=2)
    assert observe(watch, start=0, stop=60)
    watch.reset()
    assert not observe(watch, start=63, stop=63 + 27)
    assert not observe(watch, start=93, stop=399, busy=2)
    assert not observe(watch, start=402, stop=402 + 27)


def test_the_back_off_doubles_and_has_an_end():
    assert [supervisor.back_off(n) for n in (1, 2, 3, 4)] == [0.5, 1, 2, 4]
    assert supervisor.back_off(50) == 30


def test_only_a_loopback_address_counts_as_private():
    private = {host: supervisor.Options(host=host).is_private for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "10.1.2.3", "::")}
    assert private == {"127.0.0.1": True, "localhost": True, "::1": True, "0.0.0.0": False, "10.1.2.3": False, "::": False}
    assert supervisor.Options(host="0.0.0.0", port=81).address == "http://127.0.0.1:81"


# ---------------------------------------------------------------- the clock


class Planner:
    """Stands for pipelines.planner; remembers what was called."""

    def __init__(self, age: float | None = 1.0, busy: int = 0, own_age: float | None = 1.0, waits: bool = False):
        self.calls: list[str] = []
        self.notes: list[str] = []
        self.age, self.busy, self.own_age, self.waits = age, busy, own_age, waits

    def __getattr__(self, name):
        return lambda: self.calls.append(name)

    def note_restart(self, reason):
        self.notes.append(reason)

    def pulse_age(self):
        return self.age

    def host_age(self):
        return self.own_age

    def messages_wait(self):
        return self.waits

    def busy_workers(self):
        return self.busy


def test_a_round_sweeps_and_rings_and_ticks_only_when_it_is_time():
    planner, clock = Planner(), supervisor.Clock(workers=2)
    clock.round(planner, tick=True)
    clock.round(planner, tick=False)
    assert planner.calls == ["tick", "sweep", "ring_canary", "sweep", "ring_canary"]
    assert clock.stall == ""


def test_a_note_that_the_database_refused_is_written_later_and_once():
    planner, clock = Planner(), supervisor.Clock(workers=2)
    clock.notes.append("the workers ended")
    planner.note_restart = lambda reason: (_ for _ in ()).throw(OSError("database away"))
    with pytest.raises(OSError):
        clock.round(planner, tick=False)
    del planner.note_restart
    clock.round(planner, tick=False)
    clock.round(planner, tick=False)
    assert planner.notes == ["the workers ended"]


def test_a_stalled_queue_leaves_a_reason_in_words(monkeypatch):
    clock = supervisor.Clock(workers=2)
    moments = iter(range(0, 300, 3))
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: float(next(moments)))
    for _ in range(12):
        clock.round(Planner(age=400.0, busy=1), tick=False)
    assert clock.stall == "The queue last answered 400 s ago, although only 1 of 2 workers are busy"


def rounds(monkeypatch, *planners: Planner) -> supervisor.Clock:
    """A clock after one round with each of these planners, three seconds apart."""
    clock = supervisor.Clock(workers=2)
    for place, planner in enumerate(planners):
        monkeypatch.setattr(supervisor.time, "monotonic", lambda place=place: 3.0 * place)
        clock.round(planner, tick=False)
    return clock


def test_a_host_that_takes_nothing_while_messages_wait_is_found_although_another_host_answers(monkeypatch):
    stalled = Planner(age=1.0, own_age=400.0, waits=True)
    assert rounds(monkeypatch, *[stalled] * 10).stall == ""
    assert rounds(monkeypatch, *[stalled] * 12).stall == "Messages wait, and this host last took one 400 s ago, although only 0 of 2 workers are busy"


@pytest.mark.parametrize(
    "innocent",
    [
        Planner(age=1.0, own_age=400.0, waits=False),  # the others were faster: nothing is left to take
        Planner(age=1.0, own_age=400.0, waits=True, busy=2),  # all its workers have a block in hand
        Planner(age=1.0, own_age=2.0, waits=True),  # it takes, and more comes
    ],
)
def test_a_host_that_had_nothing_to_take_or_no_hand_free_is_left_alone(monkeypatch, innocent):
    assert rounds(monkeypatch, *[innocent] * 40).stall == ""


def test_a_queue_that_is_emptied_now_and_then_excuses_a_host(monkeypatch):
    waits, empty = Planner(own_age=None, waits=True), Planner(own_age=None)
    assert rounds(monkeypatch, *[*[waits] * 8, empty] * 5).stall == ""


# ---------------------------------------------------------------- real children

POLITE = """
import signal, subprocess, sys, time
from pathlib import Path
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
Path(sys.argv[1]).open("a").write(f"{__import__('os').getpid()} {child.pid}\\n")
def polite(*_):
    Path(sys.argv[1]).open("a").write("asked\\n")
    child.kill()
    sys.exit(0)
signal.signal(signal.SIGTERM, polite)
while True: time.sleep(600)
"""
STUBBORN = POLITE.replace("child.kill()\n    sys.exit(0)", "pass")


@pytest.fixture
def alone(monkeypatch):
    """No database of ours to keep alive."""
    monkeypatch.setattr(database, "is_embedded", lambda: False)


def born(diary: Path) -> list[list[int]]:
    """Main process and child, of each start."""
    lines = diary.read_text().splitlines() if diary.exists() else []
    return [[int(pid) for pid in line.split()] for line in lines if line[0].isdigit()]


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def within(seconds: float, condition) -> bool:
    """A deadline for what must come, not a time that must pass."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_killed_child_is_started_again_without_its_orphans_and_all_end_together(tmp_path, alone, caplog):
    diary = tmp_path / "diary"
    with supervisor.Supervisor(workers=1, logs=tmp_path, grace=20) as watcher:
        watcher.add("workers", [sys.executable, "-c", POLITE, str(diary)])
        assert watcher.wait_for(lambda: len(born(diary)) == 1, 20)
        (first, orphan) = born(diary)[0]
        os.kill(first, signal.SIGKILL)
        assert watcher.wait_for(lambda: len(born(diary)) == 2, 20)
        assert is_gone(orphan), "two clusters at once would be the end of good order"
        assert "workers ended (killed by SIGKILL)" in caplog.text
    assert all(is_gone(pid) for pids in born(diary) for pid in pids)
    assert diary.read_text().count("asked") == 1, "one signal, to one process"


def test_a_child_that_will_not_end_is_ended_with_all_that_it_started(tmp_path, alone):
    diary = tmp_path / "diary"
    with supervisor.Supervisor(workers=1, logs=tmp_path, grace=0.3) as watcher:
        watcher.add("workers", [sys.executable, "-c", STUBBORN, str(diary)])
        assert watcher.wait_for(lambda: len(born(diary)) == 1, 20)
    assert all(is_gone(pid) for pid in born(diary)[0])


def test_a_second_request_ends_the_patience(tmp_path, alone):
    diary = tmp_path / "diary"
    with supervisor.Supervisor(workers=1, logs=tmp_path, grace=3600) as watcher:
        watcher.add("workers", [sys.executable, "-c", STUBBORN, str(diary)])
        assert watcher.wait_for(lambda: len(born(diary)) == 1, 20)
        os.kill(os.getpid(), signal.SIGTERM)
        assert not watcher.wait_for(lambda: False, 20)
        watcher.asked_to_end += 1
    assert all(is_gone(pid) for pid in born(diary)[0])


def test_the_workers_may_use_the_practice_city_to_the_end(tmp_path, alone):
    diary = tmp_path / "diary"
    named = POLITE.replace('"asked\\n"', 'sys.argv[2] + " asked\\n"')
    with supervisor.Supervisor(workers=1, logs=tmp_path, grace=20) as watcher:
        watcher.add("practice-city", [sys.executable, "-c", named, str(diary), "city"], serves_others=True)
        watcher.add("workers", [sys.executable, "-c", named, str(diary), "workers"])
        assert watcher.wait_for(lambda: len(born(diary)) == 2, 20)
    assert [line for line in diary.read_text().splitlines() if "asked" in line] == ["workers asked", "city asked"]


def test_a_stalled_cluster_is_killed_whole_and_the_restart_is_noted(tmp_path, alone):
    diary = tmp_path / "diary"
    with supervisor.Supervisor(workers=1, logs=tmp_path, grace=20) as watcher:
        watcher.add("workers", [sys.executable, "-c", STUBBORN, str(diary)])
        watcher.clock = supervisor.Clock(workers=1)  # not started: the test plays its part
        assert watcher.wait_for(lambda: len(born(diary)) == 1, 20)
        watcher.clock.stall = "The queue last answered never"
        assert watcher.wait_for(lambda: len(born(diary)) == 2, 20)
        assert all(is_gone(pid) for pid in born(diary)[0])
        assert watcher.clock.notes == ["The queue last answered never"]
        assert watcher.clock.stall == ""
        os.kill(born(diary)[1][0], signal.SIGKILL)


SUPERVISOR_OF_ONE = """
import sys
from pathlib import Path
from opendata_ops import database, supervisor
database.is_embedded = lambda: False
with supervisor.Supervisor(workers=1, logs=Path(sys.argv[1]).parent) as watcher:
    watcher.add("workers", [sys.executable, "-c", sys.argv[2], sys.argv[1]])
    watcher.watch()
"""


def start_supervisor(diary: Path) -> subprocess.Popen:
    started = subprocess.Popen([sys.executable, "-c", SUPERVISOR_OF_ONE, str(diary), POLITE], cwd=bootstrap.PROJECT, start_new_session=True)
    assert within(20, lambda: len(born(diary)) == 1 and len(leashes(started)) == 1)
    return started


def leashes(started: subprocess.Popen) -> list[int]:
    found = []
    for child in psutil.Process(started.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is one, too
            found += [child.pid] if "opendata_ops.supervisor" in child.cmdline() else []
    return found


def test_children_do_not_outlive_a_killed_supervisor(tmp_path):
    diary = tmp_path / "diary"
    started = start_supervisor(diary)
    started.kill()
    started.wait()
    assert within(10, lambda: all(is_gone(pid) for pid in born(diary)[0]))


def test_a_killed_leash_is_replaced_before_it_is_needed(tmp_path):
    diary = tmp_path / "diary"
    started = start_supervisor(diary)

    (first,) = leashes(started)
    os.kill(first, signal.SIGKILL)
    assert within(10, lambda: len(leashes(started)) == 1 and leashes(started) != [first])
    started.kill()
    started.wait()
    assert within(10, lambda: all(is_gone(pid) for pid in born(diary)[0]))


def test_a_signal_to_the_whole_process_group_ends_it_in_good_order(tmp_path):
    diary = tmp_path / "diary"
    started = start_supervisor(diary)
    os.killpg(started.pid, signal.SIGINT)
    assert started.wait(timeout=25) == 0
    assert diary.read_text().count("asked") == 1
    assert all(is_gone(pid) for pid in born(diary)[0])


# ---------------------------------------------------------------- demo and up


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "PROJECT", tmp_path)
    return tmp_path


def test_a_taken_port_is_named_with_the_way_out(own_folder, monkeypatch):
    monkeypatch.setattr(supervisor, "_port_is_free", lambda host, port, patience=3: False)
    taken = pytest.raises(supervisor.CannotStart, match=r"Port 8000 on 127\.0\.0\.1 is taken\. .*--port 8001")
    with taken, supervisor.only_one(supervisor.Options()):
        pass


def test_a_listening_socket_makes_a_port_taken_and_a_closed_one_frees_it():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert not supervisor._port_is_free("127.0.0.1", port, patience=0)
    assert supervisor._port_is_free("127.0.0.1", port, patience=0)


def test_a_second_city_from_the_same_folder_is_refused_and_told_where_the_first_is(own_folder, monkeypatch):
    monkeypatch.setattr(supervisor, "_port_is_free", lambda *_, **__: True)
    refused = pytest.raises(supervisor.CannotStart, match=r"already runs from this folder: http://127\.0\.0\.1:8123 \(process \d+\)")
    with supervisor.only_one(supervisor.Options(port=8123)), refused, supervisor.only_one(supervisor.Options(port=8124)):
        pass
    with supervisor.only_one(supervisor.Options(port=8123)):
        pass  # the place is free again


def test_an_address_that_is_not_ours_is_refused_in_words():
    with pytest.raises(supervisor.CannotStart, match="Cannot listen on 192.0.2.1"):
        supervisor._port_is_free("192.0.2.1", 8000)


@pytest.fixture
def real_city(db):
    from pipelines.models import Provider

    return Provider.objects.create(slug="austin", title="Austin", kind="socrata", base_url="https://data.example.gov")


def test_the_practice_city_does_not_move_into_a_real_one(real_city):
    with pytest.raises(supervisor.CannotStart, match="holds a real city"):
        supervisor._respect_the_city(supervisor.Options(practice=True))


def test_fresh_never_empties_a_real_city(real_city, monkeypatch):
    monkeypatch.setattr(database, "is_embedded", lambda: True)
    monkeypatch.setattr(database, "start_over", lambda: pytest.fail("emptied"))
    with pytest.raises(supervisor.CannotStart, match="will not empty it"):
        supervisor.start_over()


def test_fresh_never_deletes_a_lake_outside_of_var(db, monkeypatch, lake_folder):
    lake_folder.mkdir()
    monkeypatch.setattr(database, "is_embedded", lambda: True)
    monkeypatch.setattr(database, "start_over", lambda: pytest.fail("emptied"))
    with pytest.raises(supervisor.CannotStart, match="deletes only a lake under"):
        supervisor.start_over()
    assert lake_folder.exists()


def test_the_practice_city_with_its_public_passwords_is_never_offered_to_the_network(db):
    supervisor._respect_the_city(supervisor.Options(practice=True))  # marks the database
    supervisor._respect_the_city(supervisor.Options(host="127.0.0.1"))
    with pytest.raises(supervisor.CannotStart, match="passwords are public"):
        supervisor._respect_the_city(supervisor.Options(host="0.0.0.0"))


def test_static_files_are_collected_only_when_one_changed(own_folder, settings, monkeypatch):
    collected = []
    monkeypatch.setattr("django.core.management.call_command", lambda *words, **_: collected.append(words[0]))
    folder = own_folder / "static"
    folder.mkdir()
    (folder / "ops.css").write_text("a { }")
    settings.STATICFILES_DIRS = [folder]
    settings.STATICFILES_FINDERS = ["django.contrib.staticfiles.finders.FileSystemFinder"]
    from django.contrib.staticfiles import finders

    monkeypatch.setattr(finders, "get_finders", lambda: [finders.FileSystemFinder()])
    supervisor.collect_static()
    supervisor.collect_static()
    assert collected == ["collectstatic"]
    (folder / "ops.css").write_text("a { color: red }")
    supervisor.collect_static()
    assert collected == ["collectstatic"] * 2


def test_the_first_lines_say_where_and_who(db):
    text = supervisor.welcome(supervisor.Options(practice=True, port=8123), [("viewer", "vera", "v-secret")])
    assert "http://127.0.0.1:8123" in text
    assert "vera" in text and "v-secret" in text
    assert "createsuperuser" in supervisor.welcome(supervisor.Options(), [])


def test_a_log_that_grew_too_large_is_put_aside_while_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "LOG_BYTES", 10)
    path = tmp_path / "web.log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"more than ten bytes\n")
        supervisor._put_aside(path)
        writer.write(b"next\n")
    assert path.read_bytes() == b"next\n"
    assert (tmp_path / "web.log.1").read_bytes() == b"more than ten bytes\n"
