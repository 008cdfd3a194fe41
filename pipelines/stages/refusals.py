"""Refusals: the records that standardize, enrich and aggregate refuse, each kept whole with its reason until it is judged anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from django.db.models.functions import Now

from pipelines.formats.standard import Refused, Tally
from pipelines.models import RejectedRow, Run
from pipelines.stages.note import Note
from pipelines.warehouse.tables import REJECTED_ROWS, REJECTED_SHARE, visible

#: So many kinds of refusals and warnings are told in the log, the most frequent first; all are in the run's details.
MOST_KINDS = 20
BATCH = 200


class Refusals:
    """What one run refused: kept as it comes, counted by reason."""

    def __init__(self, run: Run):
        self.run = run
        self.reasons: Counter[str] = Counter()

    def keep(self, refused: Iterable[Refused], file: str) -> None:
        """Keep records of the file at that pointer."""
        batch = list(refused)
        self.reasons.update(one.reason for one in batch)
        RejectedRow.objects.bulk_create((self._kept(one, file) for one in batch), batch_size=BATCH)

    def _kept(self, refused: Refused, file: str) -> RejectedRow:
        return RejectedRow(
            run=self.run,
            block=self.run.block,
            reason=visible(refused.reason)[:300],
            column=visible(refused.column)[:63],
            value=visible(refused.value)[:1000],
            row_key=visible(refused.key)[:300],
            raw=_visible(refused.raw),
            file=file,
            line=refused.number,
        )

    def retire_earlier(self) -> None:
        """Every record of the block was judged anew, those that this stage refused before among them."""
        earlier = RejectedRow.objects.filter(block=self.run.block, run__stage=self.run.stage, replayed_at=None)
        earlier.exclude(run=self.run).update(replayed_at=Now())

    def tell(self, note: Note, tally: Tally) -> None:
        """What was refused and what was odd, as lines of the log."""
        for words, times in self.reasons.most_common(MOST_KINDS):
            note.warn(f"{times:,} rows rejected: {words}")
        for words, times in tally.warnings.most_common(MOST_KINDS):
            note.warn(f"{times:,} rows taken all the same: {words}")

    def words(self, tally: Tally) -> str:
        """The tally in a sentence, "2,004 of 2,010 rows, 6 rejected"."""
        words = f"{tally.rows_out:,} of {tally.rows_in:,} rows"
        if tally.rejected:
            words += f", {tally.rejected:,} rejected"
            if is_suspicious(tally):
                words += f" (most because of: {self.reasons.most_common(1)[0][0]})"
        words += f", {tally.duplicates:,} duplicates" * bool(tally.duplicates)
        return words + f", {tally.elsewhere:,} that belong to other blocks" * bool(tally.elsewhere)


def is_suspicious(tally: Tally) -> bool:
    """Whether so much was refused that something else than the rows is wrong."""
    too_many = tally.rejected > REJECTED_ROWS and tally.rejected > tally.rows_in * REJECTED_SHARE
    return too_many or (tally.rejected > 0 and not tally.rows_out)


def _visible(value: Any) -> Any:
    """JSON as the database can keep it: what is no text is written as its bytes."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(name): _visible(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_visible(inner) for inner in value]
    return value
