"""The queue runs what we wrote for it and nothing else, whoever holds SECRET_KEY or may write to the database."""

import json
import multiprocessing
import os
import pickle
import queue
from datetime import timedelta

import pytest
from django.core import signing as django_signing
from django.utils import timezone
from django_q import signing
from django_q.brokers import get_broker
from django_q.conf import Conf
from django_q.models import OrmQ, Task
from django_q.pusher import pusher
from django_q.signing import BadSignature, SignedPackage
from django_q.tasks import async_task
from django_q.worker import worker

from pipelines import doorbell, planner
from pipelines.tasks import ALLOWED

PLAIN = {"id": "1", "name": "ring", "func": planner.CANARY, "args": [], "kwargs": {}, "started": "2026-11-20T23:00:00Z"}


class Raw:
    """A serializer for messages that were not made by our code."""

    def dumps(self, data: bytes) -> bytes:
        return data


def signed(data: bytes) -> str:
    """A message with a true signature, as somebody makes it who knows SECRET_KEY."""
    return django_signing.dumps(data, key=Conf.SECRET_KEY, salt=Conf.PREFIX, serializer=Raw)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def planted(name: str, bomb: str) -> bytes:
    return {
        "a function of the system": lambda: json.dumps({**PLAIN, "func": "os.mkdir", "args": [bomb]}).encode(),
        "a hook": lambda: json.dumps({**PLAIN, "hook": "os.mkdir"}).encode(),
        "a chain": lambda: json.dumps({**PLAIN, "chain": [["os.mkdir", [bomb], {}]]}).encode(),
        "no function": lambda: json.dumps({key: value for key, value in PLAIN.items() if key != "func"}).encode(),
        "a list for a function": lambda: json.dumps({**PLAIN, "func": ["os.mkdir"]}).encode(),
        "a list": lambda: b"[1, 2]",
        "nothing": lambda: b"",
        "a pickle": lambda: pickle.dumps(Bomb(bomb)),
        "a task as django-q2 pickles it": lambda: pickle.dumps({**PLAIN, "func": "os.mkdir", "args": (bomb,), "started": timezone.now()}),
    }[name]()


PLANTS = [
    "a function of the system", "a hook", "a chain", "no function", "a list for a function", "a list", "nothing", "a pickle",
    "a task as django-q2 pickles it",
]  # fmt: skip


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_message_is_not_even_read(name, tmp_path):
    bomb = tmp_path / "exploded"
    with pytest.raises(BadSignature):
        SignedPackage.loads(signed(planted(name, str(bomb))))
    assert not bomb.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_message_leaves_the_queue_and_reaches_no_worker(name, tmp_path, monkeypatch):
    bomb = tmp_path / "exploded"
    OrmQ.objects.create(key=Conf.CLUSTER_NAME, payload=signed(planted(name, str(bomb))), lock=timezone.now() - timedelta(minutes=1))
    assert push() == []
    assert not OrmQ.objects.exists() and not bomb.exists()


def push() -> list[dict]:
    """One round of django-q2's pusher: what it hands to the workers."""
    tasks, stop = queue.Queue(), multiprocessing.Event()
    stop.set()
    pusher(tasks, stop, broker=get_broker())
    return list(tasks.queue)


@pytest.mark.django_db
def test_a_ring_goes_through_the_queue_and_is_answered(monkeypatch):
    monkeypatch.setattr("pipelines.tasks.answer_canary", lambda: "answered")
    async_task(planner.CANARY)
    OrmQ.objects.update(lock=timezone.now() - timedelta(minutes=1))
    (task,) = push()
    assert task["started"].tzinfo is not None
    tasks, results = queue.Queue(), queue.Queue()
    tasks.put(task)
    tasks.put("STOP")
    worker(tasks, results, multiprocessing.Value("f", -1), timeout=-1)
    answer = results.get_nowait()
    assert (answer["success"], answer["result"]) == (True, "answered")


@pytest.mark.django_db
@pytest.mark.parametrize("func", ["os.system", os.system, "pipelines.blocks.claim", "pipelines.tasks.ALLOWED", ""])
def test_our_own_code_cannot_ring_for_anything_else_either(func):
    with pytest.raises(BadSignature, match="may not run"):
        async_task(func, "id")
    assert not OrmQ.objects.exists() and not Task.objects.exists()


def test_the_message_carries_plain_values_only():
    message = doorbell.PlainPayload.dumps({**PLAIN, "args": (7,), "started": timezone.now()})
    assert json.loads(message)["args"] == [7]
    with pytest.raises(TypeError):
        doorbell.PlainPayload.dumps({**PLAIN, "args": (object(),), "started": timezone.now()})


def test_a_function_that_is_given_itself_goes_by_its_name():
    from pipelines import tasks

    named = json.loads(doorbell.PlainPayload.dumps({**PLAIN, "func": tasks.answer_canary}))
    assert named["func"] == planner.CANARY and named["func"] in ALLOWED


def test_every_process_of_ours_has_the_plain_payload():
    assert signing.PickleSerializer is doorbell.PlainPayload


def test_the_clusters_statistics_do_not_fail():
    assert doorbell.PlainPayload.dumps(object()) == b"null"
