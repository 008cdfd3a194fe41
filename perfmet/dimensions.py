"""The dimensions of the data quality score, 0 to 1, each with its reasons. Pure: what is known of a table comes as `Facts`.

Two models, of open-data-toronto: "current" as its job `generate_data_quality_codes` (2023 on; facts/toronto.md §2.1), and "0.1.0" as
the notebook of framework-data-quality (2020; §2.3). The codes are the original's, letter by letter, and beside each stands a sentence.

Where the original breaks, this does not: a name without a word ("__") is an unclear one, a table without rows is scored (each of its
columns says one thing at most), `formats` may be a text, and a date that nobody gave is the answer "fresh" only in words that say so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from perfmet.words import Knows, english_share, snake

USABILITY, METADATA, FRESHNESS, COMPLETENESS, ACCESSIBILITY = DIMENSIONS = (
    "usability", "metadata", "freshness", "completeness", "accessibility",
)  # fmt: skip
DATASTORE, FILESTORE = "datastore", "filestore"
NOT_APPLICABLE = "Not Applicable"
#: The column with the shape of a row: it is not judged by what it says.
GEOMETRY = "geometry"

REAL_TIME = "real-time"
#: Rates that promise nothing: such a dataset is only old, never late.
PROMISES_NOTHING = ("as available", "will not be refreshed")
#: Rate to days. Hourly is ours: the score counts whole days.
PERIODS = {
    "hourly": 1, "daily": 1, "weekly": 7, "bi-weekly": 14, "monthly": 30, "quarterly": 91, "semi-annually": 182, "annually": 365,
}  # fmt: skip
#: After how many periods too late nothing is left of the metric.
PATIENCE = {"hourly": 7, "daily": 7, "weekly": 4, "bi-weekly": 4, "monthly": 2, "quarterly": 2, "semi-annually": 2, "annually": 0.5}
STALE_DAYS, GONE_DAYS = 2 * 365, 3 * 365

FIELDS = ("notes", "topics", "owner_email", "information_url")
FIELDS_0_1_0 = ("collection_method", "limitations", "topics", "owner_email")
#: The portal's names of the fields, as people call them.
FIELD_WORDS = {
    "notes": "the description",
    "topics": "the topics",
    "owner_email": "the steward's address",
    "information_url": "the address of a page that tells more",
    "collection_method": "how it was collected",
    "limitations": "its limitations",
}

#: At most so much of a column's name may be strange to a reader of "current"; so much must be English for 0.1.0.
UNCLEAR_SHARE, CLEAR_SHARE = 0.2, 0.8
#: A file of these formats should have been loaded as a table.
TABULAR = {"CSV", "XLSX", "XLS", "ZIP"}


@dataclass(frozen=True)
class ColumnFacts:
    """What is known of one column: its words in the dictionary, how many of its cells say nothing, whether all others say the same."""

    name: str
    notes: str = ""
    nulls: int = 0
    is_constant: bool = False
    type: str = ""
    sample: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """All that a score stands on.

    `fields` are the metadata by the portal's names (notes, topics, owner_email, information_url, collection_method, limitations): one
    that is not there is missing, one that is there may be empty. `days` are the whole days since new rows came, None where nobody
    knows. `rows` and `columns` are of the table; of a file there are none. `has_pipeline`: something brings its rows by itself.
    `invalid_shapes` counts the rows whose shape is none, None where there are no shapes.
    """

    package: str
    resource: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    refresh_rate: str = ""
    days: int | None = None
    rows: int = 0
    columns: tuple[ColumnFacts, ...] = ()
    has_tags: bool = False
    has_pipeline: bool = False
    formats: str | Sequence[str] = ()
    store_type: str = DATASTORE
    invalid_shapes: int | None = None
    title: str = ""
    division: str = ""
    resource_id: str = ""

    @property
    def rate(self) -> str:
        """The promised rate as the formulas know it: "Daily" is daily."""
        return self.refresh_rate.strip().lower()

    @property
    def is_file(self) -> bool:
        return self.store_type == FILESTORE


@dataclass(frozen=True)
class Reason:
    """Why a dimension is less than 1. `code` is the original's, without its "~", and "" where it has none for it."""

    dimension: str
    code: str
    text: str
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dimension:
    """0 to 1 (usability of 0.1.0 may be below), with its reasons. `value` is None where the model does not ask this of a file."""

    name: str
    value: float | None
    reasons: tuple[Reason, ...] = ()

    @property
    def code(self) -> str:
        """The codes as the original stores them, in one text."""
        return NOT_APPLICABLE if self.value is None else "".join(f"~{reason.code}" for reason in self.reasons if reason.code)


# words


def listed(names: Sequence[str], most: int = 5) -> str:
    """ "a, b and 3 more"."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most - 1])} and {len(names) - most + 1:,} more"


def many(number: int, what: str) -> str:
    """ "1 column", "3 columns"."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def is_said(value: Any) -> bool:
    """Whether a field says anything; spaces do not, nor an empty list that a portal keeps as text."""
    return value.strip() not in ("", "[]", "{}") if isinstance(value, str) else bool(value)


def formats_of(formats: str | Sequence[str]) -> set[str]:
    """The formats in capitals; CKAN gives them as a list or as one text, "CSV,XLSX"."""
    given = formats.split(",") if isinstance(formats, str) else formats
    return {each.strip().upper() for each in given if each and each.strip()}


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# what both models ask of the columns


def constant_columns(facts: Facts) -> list[ColumnFacts]:
    """Columns that say one thing at most (explanation_codes_logic.py: nunique() <= 1); shapes are not asked."""
    return [column for column in facts.columns if column.name != GEOMETRY and (column.is_constant or not facts.rows)]


def unclear_columns(facts: Facts, knows: Knows) -> list[ColumnFacts]:
    """Columns of whose words at most a fifth is English."""
    return [column for column in facts.columns if english_share(column.name, knows) <= UNCLEAR_SHARE]


def _constants(facts: Facts) -> tuple[float, list[Reason]]:
    """(1 − k/n, why)."""
    same = [column.name for column in constant_columns(facts)]
    if not same:
        return 1.0, []
    code = f"constant_cols:{','.join(same)}"
    if facts.rows:
        empty = [column.name for column in constant_columns(facts) if column.nulls == facts.rows]
        text = f"{many(len(same), 'column')} of {len(facts.columns):,} {'say' if len(same) != 1 else 'says'} the same in every row: {listed(same)}"
        text += f"; of these nothing at all is in {listed(empty)}." if empty else "."
    else:
        text = "The table has no rows, so no column tells anything."
    return 1 - len(same) / len(facts.columns), [Reason(USABILITY, code, text, tuple(same))]


def missing_share(facts: Facts) -> float:
    """Which share of the table's cells says nothing; 0 of a table without cells."""
    cells = facts.rows * len(facts.columns)
    return sum(column.nulls for column in facts.columns) / cells if cells else 0.0


def _emptiest(facts: Facts) -> tuple[str, ...]:
    """The columns with empty cells, the emptiest first."""
    found = sorted((column for column in facts.columns if column.nulls), key=lambda column: -column.nulls)
    return tuple(column.name for column in found)


def _fields(facts: Facts, names: Sequence[str], mailboxes: Collection[str], mailbox_words: str) -> tuple[float, list[Reason]]:
    """(the share of the fields that say something, why not all). An address that is everybody's names nobody."""
    absent = [name for name in names if name not in facts.fields]
    empty = [name for name in names if name in facts.fields and not is_said(facts.fields[name])]
    address = str(facts.fields.get("owner_email") or "").lower()
    is_everybodys = any(mailbox.lower() in address for mailbox in mailboxes)
    reasons = []
    if absent:
        words = listed([FIELD_WORDS[name] for name in absent])
        reasons.append(Reason(METADATA, f"metadata_missing:{','.join(absent)}", f"The dataset does not say: {words}."))
    if empty:
        # the original lowers the score and says nothing
        reasons.append(Reason(METADATA, "", f"The dataset leaves empty: {listed([FIELD_WORDS[name] for name in empty])}."))
    if is_everybodys:
        reasons.append(Reason(METADATA, "owner_is_opendata", mailbox_words))
    return 1 - (len(absent) + len(empty) + is_everybodys) / len(names), reasons


# the model "current"

#: Whose address says nothing of who answers for the data.
MAILBOXES = ("opendata@toronto.ca",)
MAILBOX_WORDS = "The steward's address is that of the open data team: name the people who know the data."


def usability(facts: Facts, knows: Knows) -> Dimension:
    """mean(col_names, col_constant); names are forgiven while more than half of them are clear (dqs_logic.score_usability)."""
    if facts.is_file:
        return Dimension(USABILITY, None)
    unclear = [column.name for column in unclear_columns(facts, knows)]
    clear = 1 - len(unclear) / len(facts.columns) if facts.columns else 1.0
    reasons = []
    if clear <= 0.5:
        are = "are" if len(unclear) != 1 else "is"
        text = f"{len(unclear):,} of {many(len(facts.columns), 'column name')} {are} not made of English words: {listed(unclear)}."
        reasons.append(Reason(USABILITY, "colnames_unclear", text, tuple(unclear)))
    constant, more = _constants(facts)
    return Dimension(USABILITY, mean([clear if clear <= 0.5 else 1.0, constant]), (*reasons, *more))


def metadata(facts: Facts) -> Dimension:
    """mean(desc_dataset, desc_columns); without columns desc_dataset alone (dqs_logic.score_metadata)."""
    dataset, reasons = _fields(facts, FIELDS, MAILBOXES, MAILBOX_WORDS)
    if facts.is_file or not facts.columns:
        return Dimension(METADATA, dataset, tuple(reasons))
    silent = [column.name for column in facts.columns if column.name != GEOMETRY and not is_said(column.notes)]
    columns = 1 - len(silent) / len(facts.columns)
    if not any(is_said(column.notes) for column in facts.columns):
        text = f"None of its {many(len(facts.columns), 'column')} is described."
        reasons.append(Reason(METADATA, "all_data_def_missing", text, tuple(silent)))
    elif silent:
        text = f"{many(len(silent), 'column')} of {len(facts.columns):,} {'are' if len(silent) != 1 else 'is'} not described: {listed(silent)}."
        reasons.append(Reason(METADATA, f"missing_def_cols:{','.join(silent)}", text, tuple(silent)))
    return Dimension(METADATA, mean([dataset, columns]), tuple(reasons))


def freshness(facts: Facts) -> Dimension:
    """mean(elapse_periods, elapse_days); 1 for real time, and where nobody knows when rows came (dqs_logic.score_freshness)."""
    rate, days = facts.rate, facts.days
    if rate == REAL_TIME:
        return Dimension(FRESHNESS, 1.0)
    if days is None:
        return Dimension(FRESHNESS, 1.0, (Reason(FRESHNESS, "", "Nobody knows when new rows came last: it counts as fresh."),))
    metrics = [1.0 if days <= STALE_DAYS else max(0.0, 1 - (days / GONE_DAYS) ** 2)]
    reasons = []
    if rate in PROMISES_NOTHING:
        metrics.append(1.0)
        if days > STALE_DAYS:
            text = f"Nothing new came in {days:,} days, more than two years."
            reasons.append(Reason(FRESHNESS, f"refresh_rate:{rate}~stale", text))
    elif rate in PERIODS:
        period = PERIODS[rate]
        behind = max(0.0, (days - period) / period)
        metrics.append(max(0.0, 1 - (behind / PATIENCE[rate]) ** 2))
        # a tenth of a period that rounds to nothing is not told, as in the original
        if round(behind, 1) > 0:
            text = f"Promised {_each(rate)}, and the newest rows came {many(days, 'day')} ago: {round(behind, 1):g} periods behind."
            reasons.append(Reason(FRESHNESS, f"refresh_rate:{rate}~periods_behind:{round(behind, 1)}", text))
    elif days > STALE_DAYS:
        reasons.append(Reason(FRESHNESS, "", f"Nothing new came in {days:,} days, more than two years, and its rate {rate!r} promises nothing."))
    return Dimension(FRESHNESS, mean(metrics), tuple(reasons))


def _each(rate: str) -> str:
    words = {"semi-annually": "twice a year", "annually": "each year", "bi-weekly": "every two weeks", "hourly": "each hour"}
    return words.get(rate) or f"{rate}"


def completeness(facts: Facts) -> Dimension:
    """1 while less than half of the cells are empty, then what is left (dqs_logic.score_completeness)."""
    if facts.is_file:
        return Dimension(COMPLETENESS, None)
    missing = missing_share(facts)
    reasons = []
    # the code is given by the rounded percentage, the score by the exact one
    if round(missing * 100) >= 50:
        columns = _emptiest(facts)
        text = f"{missing:.0%} of the cells are empty, most of all in {listed(list(columns))}."
        reasons.append(Reason(COMPLETENESS, "significant_missing_data", text, columns))
    return Dimension(COMPLETENESS, 1 - missing if missing >= 0.5 else 1.0, tuple(reasons))


def is_table_in_files(facts: Facts) -> bool:
    """A file that should have been a table; so counts, as in the original, a package that names no format."""
    return facts.is_file and formats_of(facts.formats) <= TABULAR


def accessibility(facts: Facts) -> Dimension:
    """mean(tags, pipeline); nothing for files that hold tables (dqs_logic.score_accessibility)."""
    tags = 1.0 if facts.has_tags else 0.5
    pipeline = (0.8 if facts.is_file else 1.0) if facts.has_pipeline else 0.5
    value = 0.0 if is_table_in_files(facts) else mean([tags, pipeline])
    # the original scores what comes in real time, and gives no codes for it: here the sentences stay
    told: Callable[[str], str] = (lambda code: "") if facts.rate == REAL_TIME else (lambda code: code)
    reasons = []
    if not facts.has_pipeline:
        reasons.append(Reason(ACCESSIBILITY, told("no_pipeline_found"), "No pipeline brings its rows: somebody does it by hand."))
    if not facts.has_tags:
        reasons.append(Reason(ACCESSIBILITY, told("no_tags"), "It has no tags: people who search for its subject miss it."))
    if facts.is_file:
        found = formats_of(facts.formats)
        if is_table_in_files(facts):
            kinds = f"tables in files ({', '.join(sorted(found))})" if found else "files of a format that nobody names"
            text = f"It is published as {kinds}, which nobody can query: it should be a table on the portal."
        else:
            text = "It is published as files, which nobody can query."
        reasons.append(Reason(ACCESSIBILITY, told("filestore_resource"), text))
    return Dimension(ACCESSIBILITY, value, tuple(reasons))


# the model "0.1.0"

MAILBOX_0_1_0 = ("opendata",)


def usability_0_1_0(facts: Facts, knows: Knows) -> Dimension:
    """mean(col_names, col_constant, geo_validity where there are shapes).

    A column counts 1 when more than four fifths of its name is English, and half of that when the name is its own snake_case form:
    the notebook's variable says camelCase, and has it the other way round. Shapes: 5 % of invalid ones leave 0, more less than that.
    """
    names, unclear, plain = 0.0, [], []
    for column in facts.columns:
        if english_share(column.name, knows) <= CLEAR_SHARE:
            unclear.append(column.name)
        elif snake(column.name) == column.name:
            plain.append(column.name)
            names += 0.5
        else:
            names += 1.0
    reasons = []
    if unclear:
        text = f"{many(len(unclear), 'column name')} {'are' if len(unclear) != 1 else 'is'} not made of English words: {listed(unclear)}."
        reasons.append(Reason(USABILITY, "colnames_unclear", text, tuple(unclear)))
    if plain:
        reasons.append(Reason(USABILITY, "", f"Names in small letters count half in this model: {listed(plain)}.", tuple(plain)))
    constant, more = _constants(facts)
    metrics = [names / len(facts.columns) if facts.columns else 0.0, constant]
    if facts.invalid_shapes is not None:
        metrics.append(1 - facts.invalid_shapes / (0.05 * facts.rows) if facts.invalid_shapes else 1.0)
        if facts.invalid_shapes:
            text = f"The shapes of {many(facts.invalid_shapes, 'row')} of {facts.rows:,} are invalid."
            more = [*more, Reason(USABILITY, "invalid_geospatial", text, (GEOMETRY,))]
    return Dimension(USABILITY, mean(metrics), (*reasons, *more))


def metadata_0_1_0(facts: Facts) -> Dimension:
    """mean(desc_dataset, desc_columns); a column whose notes are its name is not described."""
    dataset, reasons = _fields(facts, FIELDS_0_1_0, MAILBOX_0_1_0, MAILBOX_WORDS)
    silent = [column.name for column in facts.columns if not is_said(column.notes) or column.notes.strip() == column.name]
    if silent:
        code = "all_data_def_missing" if len(silent) == len(facts.columns) else f"missing_def_cols:{','.join(silent)}"
        text = f"{many(len(silent), 'column')} of {len(facts.columns):,} {'are' if len(silent) != 1 else 'is'} not described: {listed(silent)}."
        reasons.append(Reason(METADATA, code, text, tuple(silent)))
    columns = 1 - len(silent) / len(facts.columns) if facts.columns else 0.0
    return Dimension(METADATA, mean([dataset, columns]), tuple(reasons))


def freshness_0_1_0(facts: Facts) -> Dimension:
    """mean(elapse_periods, a logistic curve from half a year to three years); 0 without a promise or a date."""
    rate, days = facts.rate, facts.days
    if rate == REAL_TIME:
        return Dimension(FRESHNESS, 1.0)
    if rate not in PERIODS or days is None:
        what = "promises no rate" if rate not in PERIODS else "does not say when new rows came last"
        return Dimension(FRESHNESS, 0.0, (Reason(FRESHNESS, "", f"The dataset {what}: this model gives it nothing."),))
    periods = max(0, days) // PERIODS[rate]
    value = mean([max(0.0, 1 - periods / 2), 1 - 1 / (1 + math.exp(4 * (2.25 - days / 365)))])
    if not periods:
        return Dimension(FRESHNESS, value)
    text = f"Promised {_each(rate)}, and the newest rows came {many(days, 'day')} ago."
    return Dimension(FRESHNESS, value, (Reason(FRESHNESS, f"periods_behind:{periods}", text),))


def completeness_0_1_0(facts: Facts) -> Dimension:
    """The share of the cells that say something."""
    missing = missing_share(facts)
    if not missing:
        return Dimension(COMPLETENESS, 1.0)
    columns = _emptiest(facts)
    code = "significant_missing_data" if round(missing * 100) >= 50 else ""
    text = f"{missing:.1%} of the cells are empty, most of all in {listed(list(columns))}."
    return Dimension(COMPLETENESS, 1 - missing, (Reason(COMPLETENESS, code, text, columns),))


def accessibility_0_1_0(facts: Facts) -> Dimension:
    """1 where a job brings the rows, else a half."""
    if facts.has_pipeline:
        return Dimension(ACCESSIBILITY, 1.0)
    return Dimension(ACCESSIBILITY, 0.5, (Reason(ACCESSIBILITY, "no_pipeline_found", "No pipeline brings its rows: somebody does it by hand."),))
