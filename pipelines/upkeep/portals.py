"""What jobs that look at a CKAN portal have in common: which portal, how its words are read, and packages at which a job fails alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from pipelines.connectors.base import Parameter
from pipelines.connectors.ckan import Ckan
from pipelines.errors import PipelineError, SetupError, TransientError
from pipelines.models import Provider, UpkeepJob
from pipelines.stages import outside
from pipelines.upkeep.jobs import Note

#: After so many packages in a row the portal itself is away, and to ask on would only take hours.
MOST_IN_A_ROW = 10
#: What a portal's JSON says in place of true.
_YES = frozenset({"true", "yes", "1"})

PORTAL = Parameter("portal", "CKAN portal", help="The slug of a provider. Empty: the only CKAN that there is.")
PORTAL_OR_OURS = Parameter("portal", "CKAN portal", help="The slug of a provider. Empty: our own catalog is looked at.")
REPEAT = Parameter("repeat", "Warn again while it lasts", default="yes", help="no: only when it begins, and when it ends.")


def provider(job: UpkeepJob, given: str) -> Provider:
    """The CKAN that is named, or the only one. Raises SetupError that names those that there are."""
    there = Provider.objects.filter(kind=Ckan.kind, is_active=True).order_by("slug")
    found = list(there.filter(slug=given) if given else there[:2])
    if len(found) == 1:
        return found[0]
    slugs = ", ".join(there.values_list("slug", flat=True)) or "none"
    raise SetupError(
        f"{job}: {f'there is no active CKAN provider {given!r}' if given else 'which CKAN portal is meant is not said'}.",
        code="bad-option",
        next_step=f"Name its slug as an option of the job. There are: {slugs}." if slugs != "none" else "Add a provider of the kind CKAN first.",
    )


@contextmanager
def asked(job: UpkeepJob, given: str, note: Note) -> Iterator[Ckan]:
    """The CKAN that is named, or the only one, to be asked; each of its retries is a sign of life. Raises SetupError."""
    found = provider(job, given)
    connector = outside.connector(found, lambda level, text: note.walk())
    if not isinstance(connector, Ckan):
        raise TypeError(f"{found.kind} is not CKAN's connector")
    with connector.door:
        yield connector


class Faults:
    """Packages at which a job failed, while it went on with the others. A portal that fails at one after the other ends the job."""

    def __init__(self) -> None:
        #: (package, why)
        self.rows: list[tuple[str, str]] = []
        self._in_a_row = 0

    @contextmanager
    def of(self, package: str) -> Iterator[None]:
        """Keep what goes wrong inside as this package's. Raises TransientError where the portal seems to be away."""
        before = self._in_a_row
        try:
            yield
        except PipelineError as error:
            self.rows.append((package, error.message))
            self.strike(error)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self.rows.append((package, f"the portal's answer is not of the shape that CKAN promises: {type(error).__name__} {error}"))
        else:
            if self._in_a_row == before:
                self.well()

    def strike(self, error: PipelineError) -> None:
        """Something of a package failed, and that is told otherwise. Raises the error where the portal seems to be away."""
        self._in_a_row += 1
        if isinstance(error, TransientError) and self._in_a_row >= MOST_IN_A_ROW:
            raise error

    def well(self) -> None:
        """The portal answered."""
        self._in_a_row = 0

    @property
    def lines(self) -> list[str]:
        """For a notice: a line a package."""
        return [f"{package}: {why}" for package, why in self.rows]


# how CKAN writes


def is_true(value: Any) -> bool:
    """Whether a portal says yes, in whichever of its ways; what it does not say is no."""
    return str(value).strip().lower() in _YES


def in_datastore(resource: Mapping[str, Any]) -> bool:
    """Whether a resource has, or ought to have, a table in the datastore."""
    return resource.get("url_type") == "datastore" or is_true(resource.get("datastore_active"))


def moment(text: Any) -> datetime | None:
    """A moment as CKAN writes it: T or a space between date and time, with or without a fraction or a zone (UTC), or a date alone.

    None where nothing is said. Raises ValueError.
    """
    if not (words := str(text or "").strip()):
        return None
    found = datetime.fromisoformat(words)
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def changed_at(resource: Mapping[str, Any]) -> datetime | None:
    """When a resource last changed, or else was made; to the second. Raises ValueError."""
    found = moment(resource.get("last_modified")) or moment(resource.get("created"))
    return found.replace(microsecond=0) if found else None


# how a notice shows a table


def table(columns: Mapping[str, list[Any]]) -> str:
    """A table for a notice: numbered lines, columns padded to their longest cell with a tab between; a column without a word is left out."""
    told = {name: [_cell(cell) for cell in cells] for name, cells in columns.items()}
    lines = max(map(len, told.values()), default=0)
    whole = {"#": [f"{number}." for number in range(1, lines + 1)]} | {name: cells for name, cells in told.items() if any(cells)}
    widths = {name: max(len(name), *map(len, cells)) for name, cells in whole.items()}
    rows = [list(whole), *zip(*whole.values(), strict=True)]
    return "\n".join("\t".join(cell.ljust(width) for cell, width in zip(row, widths.values(), strict=True)) for row in rows)


def _cell(value: Any) -> str:
    return "" if value is None else " ".join(str(value).split())


def plural(count: int, one: str, many: str = "") -> str:
    """ "1 package", "2 packages"."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"
