"""The practice city's configuration, and the first order of `demo`."""

import pytest

from catalog.models import AuditEntry
from opendata_ops import practice
from pipelines.models import ScheduleBlock, State

pytestmark = pytest.mark.django_db


def test_the_first_order_of_the_demo_is_not_refused_for_blocks_that_wait_already(monkeypatch):
    monkeypatch.setattr("pipelines.planner.ring", lambda block_id: True)
    practice.create("http://127.0.0.1:1", "http://127.0.0.1:2")

    practice.start()
    practice.start()

    assert ScheduleBlock.objects.filter(state=State.WAITING).exists()
    assert not AuditEntry.objects.filter(result__startswith="refused").exists()
