"""The preview of a re-run: which blocks an order would move, what it would publish, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pipelines import blocks, clock, planner
from pipelines.models import Stage
from pipelines.selectors import faces
from pipelines.selectors.faces import Face, Square
from pipelines.selectors.lists import paces


@dataclass(frozen=True)
class PreviewLine:
    planned: planner.Planned
    face: Face
    seconds: float | None

    @property
    def label(self) -> str:
        return clock.window_text(self.planned.starts_at, self.planned.ends_at, self.planned.pipeline.time_zone)

    @property
    def stays_rebuild(self) -> bool:
        """Whether it would go on with an initialization that somebody asked for before."""
        return self.planned.block is not None and blocks.stays_rebuild(self.planned.block, list(self.planned.will))

    @property
    def square(self) -> Square:
        block = self.planned.block
        return Square(self.face, f"{self.label}: {self.face.word.lower()}", block.get_absolute_url() if block else "")


@dataclass(frozen=True)
class Preview:
    """What placing an order would do. `seen` maps each block to its fence, for the press that follows."""

    lines: list[PreviewLine]
    will_run: int
    skipped: int
    known_rows: int
    seconds: float | None
    seen: str

    @property
    def publishes(self) -> bool:
        return any(Stage.PUBLISH in line.planned.will for line in self.lines if not line.planned.skip)

    @property
    def first_label(self) -> str:
        return self.lines[0].label

    @property
    def last_label(self) -> str:
        return self.lines[-1].label


def preview(order: planner.Order, now: datetime) -> Preview:
    """The lines of `planner.preview` with a face and a guess of the time, from the usual pace of the stages."""
    (pipeline,) = order.pipelines
    usual = paces(pipeline, now)
    lines = []
    for planned in planner.preview(order, now):
        pace = [usual[stage].seconds for stage in planned.will if stage in usual]
        window = planned.starts_at, planned.ends_at
        unborn = faces.NOT_YET if planner.due_at(pipeline, *window) > now else faces.MISSING
        face = faces.of_block(planned.block, now) if planned.block else unborn
        lines.append(PreviewLine(planned, face, sum(pace) if pace and not planned.skip else None))
    going = [line for line in lines if not line.planned.skip]
    known = [line.seconds for line in going if line.seconds is not None]
    return Preview(
        lines=lines,
        will_run=len(going),
        skipped=len(lines) - len(going),
        known_rows=sum(line.planned.known_rows or 0 for line in going),
        seconds=sum(known) / pipeline.provider.max_parallel if known else None,
        seen=",".join(f"{line.planned.block.pk}:{line.planned.block.fence}" for line in lines if line.planned.block),
    )
