"""Catching up in a test: the command as a person types it, whose blocks are worked off in this process instead of in children."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from pipelines import blocks, runner, stages
from pipelines.errors import LeaseLost, PipelineError
from pipelines.models import ScheduleBlock, State
from pipelines.stages.note import Note
from tests.pipelines.commanding import Told, command


def work_off(block_ids: Iterable[int], **how: Any) -> list[runner.Result]:
    """What `runner.work_off` does, here."""
    results = []
    for block_id in block_ids:
        while run := blocks.claim(block_id, holder="test"):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    blocks.advance(run, stages.carry_out(run, Note(run, Path(folder), lambda done, total: None)))
                except PipelineError as error:
                    blocks.fail(run, error)
                except LeaseLost:
                    break
        block = ScheduleBlock.objects.get(pk=block_id)
        results.append(runner.Result(block_id, block.state, block.message))
    return results


@pytest.fixture
def here(monkeypatch) -> None:
    """Blocks are worked off in this process."""
    monkeypatch.setattr(runner, "work_off", work_off)


def catch_up(slug: str, stage: str, *flags: str) -> Told:
    return command("catchup", slug, "--stage", stage, "--json", "--workers", "1", *flags)


def caught(slug: str, stage: str, *flags: str) -> list[str]:
    """The days of the files that were taken, "06-01 unmatched.txt", after all of them went well."""
    told = catch_up(slug, stage, *flags)
    assert told.code in (0, 3), told.err
    assert all(block["state"] in (State.DONE, State.HELD) for block in told.json["blocks"]), told.err
    [compared] = told.json["compared"]
    files = [f"{day['starts_at'][5:10]} {file['ext']}" for day in compared["days"] for file in day["files"]]
    assert (told.code == 3) == (not files)
    return files
