"""The doors of the queue: whoever takes a message is heard, by the name of its host."""

import socket

import pytest
from django.utils import timezone
from django_q.brokers import get_broker
from django_q.models import OrmQ

from pipelines import planner, tasks
from pipelines.models import Pulse
from pipelines.selectors import machinery

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("take", [tasks.answer_canary, tasks.carry_out_after, lambda: tasks.work(1)], ids=["canary", "after", "work"])
def test_a_host_is_heard_by_what_it_takes_from_the_queue(monkeypatch, take):
    monkeypatch.setattr(tasks.runner, "work", lambda block_id: "not due")
    monkeypatch.setattr(planner, "ring_due", lambda: 0)
    monkeypatch.setattr(tasks.after, "carry_out", lambda **_: [])
    assert planner.host_age() is None
    take()
    assert planner.host_age() < 60
    [host] = machinery.workers(timezone.now(), depth=0).hosts
    assert (host.name, host.face.word) == (socket.gethostname(), "Ready")


def test_a_host_is_not_heard_by_what_another_one_takes():
    Pulse.objects.create(name="worker another-host")
    assert planner.host_age() is None


def test_a_message_waits_until_somebody_takes_it_and_a_queue_that_guesses_is_not_asked(settings):
    assert not planner.messages_wait()
    OrmQ.objects.create(key=get_broker().list_key, payload="x", lock=timezone.now())
    assert planner.messages_wait()
    settings.Q_CLUSTER = {**settings.Q_CLUSTER, "sqs": {"aws_region": "us-east-1"}}
    assert not planner.messages_wait()
