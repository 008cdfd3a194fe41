"""The words of Toronto's dataset files: their keys and enumerations, and what a value of theirs is here. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from catalog.models import Dataset, RefreshRate
from pipelines import clock
from pipelines.formats.attributes import LONGEST_NAME, fitting

#: The portal of a file that is imported without --portal, where no CKAN is here yet.
PORTAL = "ckan"
ZONE = "America/Toronto"

#: What they call it → the setting here. The first four a package can't do without.
NEEDED = ("title", "dataset_category", "refresh_rate", "resources")
EXPECTED = ("schedule", "dag_owner_name", "dag_owner_email", "date_published", "owner_division", "owner_email", "notes", "excerpt")
WORDS = {
    "title": "title",
    "notes": "description",
    "excerpt": "excerpt",
    "limitations": "limitations",
    "collection_method": "collection_method",
    "information_url": "information_url",
    "owner_division": "department",
    "owner_section": "section",
    "owner_unit": "unit",
    "dag_owner_name": "engineer",
}
LISTS = ("civic_issues", "topics", "tags")
#: Kept for the way back; `jira_issue_id` is told to the portal, as they do.
ISSUE, ISSUE_URL = "jira_issue_id", "jira_issue_url"
PACKAGE_KEYS = (*NEEDED, *EXPECTED, *(key for key in WORDS if key not in NEEDED + EXPECTED), *LISTS, ISSUE, ISSUE_URL)
#: A key that was once misspelt in their own files, and what it means.
MISSPELT = {"text_published": "date_published"}

CATEGORIES = tuple(Dataset.Category.values)
RATES = {
    "Real-time": RefreshRate.REAL_TIME,
    "Hourly": RefreshRate.HOURLY,
    "Daily": RefreshRate.DAILY,
    "Weekly": RefreshRate.WEEKLY,
    "Bi-weekly": RefreshRate.FORTNIGHTLY,
    "Monthly": RefreshRate.MONTHLY,
    "Quarterly": RefreshRate.QUARTERLY,
    "Semi-annually": RefreshRate.HALF_YEARLY,
    "Annually": RefreshRate.YEARLY,
    "As available": RefreshRate.IRREGULAR,
    "Will not be Refreshed": RefreshRate.NEVER,
}
ISSUES = ("Affordable housing", "Climate change", "Fiscal responsibility", "Mobility", "Poverty reduction")
TOPICS = (
    "Business", "City government", "Community services", "Culture and tourism", "Development and infrastructure", "Environment", "Finance",
    "Garbage and recycling", "Health", "Locations and mapping", "Parks and recreation", "Permits and licenses", "Public safety", "Transportation",
    "Water",
)  # fmt: skip
#: What Airflow's words for a schedule mean. "@once" is a cadence of its own.
PRESETS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
ONCE, NEVER = "@once", ("", "none", "null", "@none", "@never")

RESOURCE_NEEDED = ("format", "url", "attributes")
#: Ignored there and here, and kept for the way back.
LEGACY = ("nested", "custom")
RESOURCE_KEYS = (
    *RESOURCE_NEEDED, "agol", "query_params", "encoding", "sheet", "jsonpath", "is_geojson", "custom_reader", "custom_headers", "multi",
    "multi_insert_date", "datastore_upsert", *LEGACY,
)  # fmt: skip
FORMATS = ("csv", "geojson", "json", "xlsx")
#: The options of a pipeline that a file speaks of. `update` and `epoch_zone` it leaves alone.
OPTIONS = (
    "attributes", "published_format", "encoding", "sheet", "jsonpath", "is_geojson", "custom_reader", "where", "multi", "multi_insert_date", "own",
)  # fmt: skip

#: As CKAN has them; only the name is told.
TAG_KEYS = ("name", "vocabulary_id", "display_name", "id", "state")
ATTRIBUTE_KEYS = ("id", "source_name", "target_name", "type", "format", "info", *LEGACY)
INFO_KEYS = ("notes", "label", "type_override")
TIMES = ("date", "timestamp")
SLUG = re.compile(r"[-a-zA-Z0-9_]{1,100}")


#: SQLAlchemy, with which CKAN makes its tables, takes it for a parameter.
_PARAMETER = re.compile(r"(?<![:\w]):(?=\w)|\\:")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_CRON_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))


def column_name(words: str) -> str:
    """The name of a column as CKAN's datastore takes it, with the least that must be changed of it; "" where nothing is left."""
    # no control characters and line ends, no double quotes, no underscore at its beginning, no `:x`, 63 bytes
    plain_words = "".join(" " if letter.isspace() else letter for letter in words if letter.isspace() or unicodedata.category(letter)[0] != "C")
    mended = _PARAMETER.sub(": ", plain_words.replace('"', "'")).strip().lstrip("_").strip()
    return fitting(mended).strip()


def slugged(words: str) -> str:
    """ "Green P / Parking" → "green-p-parking", however long."""
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def free(name: str, taken: Iterable[str]) -> str:
    """The name, or where another column has it after it was cut, the name with a number at its end."""
    number, free = 1, name
    while free in taken:
        number += 1
        end = f"_{number}"
        free = name.encode()[: LONGEST_NAME - len(end)].decode(errors="ignore") + end
    return free


def column_of(name: str, columns: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    """The column that is meant by a name, its own or that at the source; "" for none."""
    name = name.strip()
    if column_name(name) in columns:
        return column_name(name)
    return sources.get(name, "")


def moment_of(words: str) -> datetime | None:
    """The UTC instant of a date as their files have it: with a time or without, no zone meaning UTC. None for what is none."""
    read: list[Callable[[str], datetime]] = [datetime.fromisoformat]
    forms = ("%Y/%m/%d", "%m/%d/%Y", "%B %d, %Y", "%b %d, %Y", "%Y-%m")
    read += [lambda text, form=form: datetime.strptime(text, form).replace(tzinfo=UTC) for form in forms]
    for one in read:
        try:
            moment = one(words)
        except ValueError:
            continue
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    return None


def is_email(words: str) -> bool:
    try:
        validate_email(words)
    except ValidationError:
        return False
    return len(words) <= 254


def cron_of(words: str) -> str | None:
    """The expression as the clock here takes it; None for one that never comes. Airflow also takes `?`, and spans that go round."""
    if (preset := words.lower()) in PRESETS:
        return PRESETS[preset]
    fields = words.split()
    if len(fields) != 5:
        return None
    for expression in (" ".join(fields), " ".join(map(_around, fields, _CRON_RANGES))):
        try:
            clock.validate_cron(expression)
        except ValidationError:
            continue
        return expression
    return None


def _around(words: str, span: tuple[int, int]) -> str:
    """A field of a cron expression: `?` is `*`, and a span that goes round (22-2) is two."""
    first, last = span
    parts = []
    for part in words.replace("?", "*").strip(",").split(","):
        found = re.fullmatch(r"(\w+)-(\w+)", part)
        begin, end = (_WEEKDAYS.index(one.lower()) if one.lower() in _WEEKDAYS else one for one in found.groups()) if found else ("", "")
        if str(begin).isdigit() and str(end).isdigit() and int(begin) > int(end):
            parts += [f"{begin}-{last}", f"{first}-{end}"]
        else:
            parts.append(part)
    return ",".join(parts)
