"""What a block's pass did besides moving its rows: how it read, what was gone, what widened, how far it came, what it all holds now."""

from __future__ import annotations

from pipelines.models import Run, ScheduleBlock, Stage
from pipelines.selectors.chain import Chain, moment_words


def rows_words(number: int) -> str:
    return f"{number:,} row{'s' * (number != 1)}"


def outcome(block: ScheduleBlock, chain: Chain) -> list[str]:
    """The sentences, in the order of the stages, by the runs whose counts stand in the chain. Asks nothing.

    `block` has its pipeline and its portal. What belongs to an older block is told on that block's page.
    """
    # a hop that failed, runs or is behind shows what an earlier pass had left
    standing = [hop for hop in chain.hops[1:] if hop.run and hop.rows is not None and hop.state in ("ok", "rejected", "differs")]
    runs = {hop.key: hop.run for hop in standing if hop.run.block_id == block.pk}
    read, loaded, sent = (runs.get(stage) for stage in (Stage.EXTRACT, Stage.LOAD, Stage.PUBLISH))
    return [
        *(_of_reading(read, block) if read else []),
        *_of_flags(block),
        *(_of_load(loaded, block) if loaded else []),
        *(_of_publication(sent, block, is_part=_is_part(read)) if sent else []),
    ]


def _is_part(read: Run | None) -> bool:
    """Whether the block read less than all that its source has."""
    return bool(read) and read.details.get("read") != "all"


def _of_reading(run: Run, block: ScheduleBlock) -> list[str]:
    if run.details.get("read") != "changes":
        return []
    column, since = block.pipeline.watermark_column, run.details.get("since", "")
    keys = "; all keys were compared with the table’s" if run.details.get("compares_keys") else ""
    return [f"It asked for rows whose {column} is at or after {moment_words(since)}, and for those that have none{keys}."]


def _of_flags(block: ScheduleBlock) -> list[str]:
    """What is odd about its rows, the most frequent first: "Odd among its rows: 12 outside city, 1 swapped coordinates."."""
    kinds = sorted(block.flags.items(), key=lambda kind: (-kind[1], kind[0]))
    told = ", ".join(f"{number:,} {name.replace('_', ' ').replace('-', ' ')}" for name, number in kinds if number)
    return [f"Odd among its rows: {told}."] if told else []


def _of_load(run: Run, block: ScheduleBlock) -> list[str]:
    gone, lines = run.details.get("gone", 0), []
    if run.is_rebuild:
        lines.append("Initialize: a new table was put in the place of the old one, with all rows that the source has.")
    are = "is" if gone == 1 else "are"
    if gone and run.deleted:
        lines.append(f"{rows_words(gone)} {are} gone at the source: {'it was' if gone == 1 else 'they were'} deleted from the table.")
    elif gone:
        lines.append(f"{rows_words(gone)} {are} gone at the source, and kept, as the pipeline’s settings say.")
    elif run.deleted and not run.is_rebuild:
        lines.append(f"{rows_words(run.deleted)} of the table made room for what was read.")
    lines += [f"A column of the table was widened: {words}." for words in run.details.get("widened", [])]
    if mark := run.details.get("watermark"):
        lines.append(f"Read up to {moment_words(mark)} ({block.pipeline.watermark_column}); the next reading begins there, less the overlap.")
    return lines


def _of_publication(run: Run, block: ScheduleBlock, *, is_part: bool) -> list[str]:
    lines, portal = [], block.pipeline.portal.title if block.pipeline.portal else "the portal"
    if run.deleted:
        lines.append(f"{rows_words(run.deleted)} {'was' if run.deleted == 1 else 'were'} deleted on {portal}.")
    if beyond := run.details.get("beyond", 0):
        lines.append(f"{rows_words(beyond)} besides those of this block {'was' if beyond == 1 else 'were'} sent along.")
    if withheld := run.details.get("withheld", 0):
        lines.append(f"{rows_words(withheld)} {'is' if withheld == 1 else 'are'} not for the public, by the pipeline’s release.")
    if blanked := sum(run.details.get("blanked", {}).values()):
        lines.append(f"{blanked:,} {'area was' if blanked == 1 else 'areas were'} left blank: fewer rows share them than the smallest group.")
    here, there = run.details.get("table_rows"), run.details.get("portal_rows")
    if here is None or there is None:
        return lines
    if here == there:
        lines.append(f"The table and the portal have {rows_words(here)} each{', those of other blocks among them' * is_part}.")
    else:
        lines.append(f"The table has {rows_words(here)}, {portal} {there:,}.")
    return lines
