"""The catalog searched: by data source, repository, base and ext with wildcards, an exact date or a range, and a limit that is kept.

The words are those of atd-data-lake, so that what was asked of its catalog can be asked of this one; a page, a command and code
ask here alike.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from django.db.models import F, Q, QuerySet
from django.utils import timezone

from catalog import inventory
from catalog.asked import span
from catalog.models import CatalogEntry, Layer
from pipelines.errors import SetupError

#: What atd-data-lake calls a place of files → our layers. What it aggregates lies in its ready too.
REPOSITORIES: dict[str, tuple[str, ...]] = {
    **{layer: (layer,) for layer in Layer.values},
    "rawjson": (Layer.STANDARD,),
    "standardized": (Layer.STANDARD,),
    "ready": (Layer.READY, Layer.AGGREGATED),
}
TEST = "-test"
MOST = 100_000
STANDINGS = ("live", "withdrawn", "all")


@dataclass(frozen=True)
class Search:
    """What is looked for; "" and None mean anything. `%` and `*` stand for any letters, and large letters are small ones.

    `source` is a pipeline's slug, its data source ("Bluetooth") or its inventory ("bt"). `repository` is a layer, or the original's
    name of it, with -test for the files of test twins alone (those of all others without it). `ext` may leave its first dot away. `exact`
    is a day in the city's zone or a moment, `since` (inclusive) and `until` (exclusive) too: of when the window of the data begins.
    """

    source: str = ""
    repository: str = ""
    base: str = ""
    ext: str = ""
    exact: date | datetime | None = None
    since: date | datetime | None = None
    until: date | datetime | None = None
    standing: str = "live"
    newest_first: bool = False
    limit: int = 100


@dataclass(frozen=True)
class Found:
    """At most `limit` entries, and how many there are of them in all."""

    entries: list[CatalogEntry]
    total: int

    @property
    def is_cut(self) -> bool:
        return self.total > len(self.entries)


def find(search: Search) -> Found:
    """The entries in the order of their dates, then base, then ext. Raises SetupError for a repository, standing or limit that there is not."""
    if not 1 <= search.limit <= MOST:
        raise SetupError(f"The limit is {search.limit:,}.", code="bad-limit", next_step=f"Give one from 1 to {MOST:,}.")
    found = entries(search)
    listed = list(found[: search.limit])
    return Found(listed, len(listed) if len(listed) < search.limit else found.order_by().count())


def entries(search: Search) -> QuerySet[CatalogEntry]:
    """All that is asked for, whatever its number: `limit` is not looked at. Raises SetupError."""
    found = CatalogEntry.objects.select_related("dataset")
    direction = "-" if search.newest_first else ""
    found = found.order_by(f"{direction}window_start", "id_base", "id_ext", "source", "layer", "-pk")
    if search.standing not in STANDINGS:
        raise SetupError(f"{search.standing!r} is no standing.", code="bad-standing", next_step=f"Say {', '.join(STANDINGS)}.")
    if search.standing == "live":
        found = found.live()
    elif search.standing == "withdrawn":
        found = found.exclude(withdrawn_at=None)
    for condition in (_of_repository(search.repository), *conditions(search.source, search.base, search.ext)):
        found = found.filter(condition)
    if search.exact is not None:
        start, end = _bounds(search.exact)
        found = found.filter(window_start__gte=start, window_start__lt=end)
    if search.since is not None:
        found = found.filter(window_start__gte=_bounds(search.since)[0])
    if search.until is not None:
        found = found.filter(window_start__lt=_bounds(search.until)[0])
    return found


def conditions(source: str = "", base: str = "", ext: str = "") -> list[Q]:
    """The conditions on who brought a file and what it is called, for whoever filters entries by other things too."""
    found = []
    if source.strip():
        # the pipeline of that slug among those that feed the entry's dataset
        own = Q(dataset__pipelines__slug=F("source"))
        named = CatalogEntry.objects.filter(own, like("dataset__pipelines__data_source", source) | like("dataset__pipelines__inventory", source))
        found.append(like("source", source) | Q(pk__in=named.values("pk")))
    if base.strip():
        found.append(like("id_base", base))
    if ext.strip():
        # the names of the shelf keep their dot, those of atd-data-lake have none
        found.append(like("id_ext", ext) | like("id_ext", f".{ext.strip()}"))
    return found


def like(field: str, words: str) -> Q:
    """That a field is these words, in which `%` and `*` stand for any letters."""
    words = words.strip()
    if not re.search(r"[%*]", words):
        return Q(**{f"{field}__iexact": words})
    pattern = ".*".join(re.escape(part) for part in re.split(r"[%*]+", words))
    return Q(**{f"{field}__iregex": f"^{pattern}$"})


def _of_repository(name: str) -> Q:
    name = name.strip().lower()
    is_test = name.endswith(TEST)
    layers = REPOSITORIES.get(name.removesuffix(TEST))
    if not name:
        return Q()
    if layers is None:
        raise SetupError(
            f"{name!r} is no repository.", code="bad-repository", next_step=f"Say {', '.join(REPOSITORIES)}, or one of them with {TEST}."
        )
    twins = CatalogEntry.objects.filter(dataset__pipelines__slug=F("source"), dataset__pipelines__twin_of__isnull=False)
    of_twins = Q(pk__in=twins.values("pk"))
    return Q(layer__in=layers) & (of_twins if is_test else ~of_twins)


def moment(text: str) -> date | datetime | None:
    """A day or a moment as people type it, None for nothing. Raises SetupError."""
    text = text.strip()
    if not text:
        return None
    try:
        return date.fromisoformat(text) if len(text) <= 10 else inventory.moment(text)
    except ValueError:
        raise SetupError(f"{text!r} is neither a day nor a moment.", code="bad-date", next_step="Write it like 2019-06-01.") from None


def _bounds(asked: date | datetime) -> tuple[datetime, datetime]:
    """A day of the city as two instants; of a moment, itself and the microsecond after it."""
    if isinstance(asked, datetime):
        asked = asked if asked.tzinfo else asked.replace(tzinfo=timezone.get_current_timezone())
        return asked, asked + timedelta(microseconds=1)
    return span(asked)


def as_json(entry: CatalogEntry) -> dict[str, Any]:
    """An entry as plain values, under the names that the original's catalog has for them; times by the city's clock."""
    return {
        "id": entry.pk,
        "dataset": entry.dataset.slug,
        "data_source": entry.source,
        "repository": entry.layer,
        "id_base": entry.id_base,
        "id_ext": entry.id_ext,
        "pointer": entry.pointer,
        "collection_date": _local(entry.window_start),
        "collection_end": _local(entry.window_end),
        "processing_date": _local(entry.created_at),
        "withdrawn_at": _local(entry.withdrawn_at),
        "sha256": entry.sha256,
        "bytes": entry.bytes,
        "rows": entry.rows,
        "origin": entry.origin,
        "metadata": entry.metadata,
    }


def _local(at: datetime | None) -> str | None:
    return None if at is None else timezone.localtime(at).isoformat(sep=" ")
