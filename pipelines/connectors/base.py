"""What a connector is: one class a kind of outside system, registered by being defined.

A *source* describes, counts and fetches; a *publisher* checks, upserts and counts. One class may be both; what a kind
can't do, it says in words: the verbs of the half that it lacks raise SetupError.
Nothing here knows Django or the database: a connector is given an `Account` and a `Door` and returns plain values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from pipelines.errors import SetupError

#: The types of a column as the catalog, the warehouse and the portals know them.
COLUMN_TYPES = ("text", "number", "local_time", "instant", "boolean", "point", "json")


@dataclass(frozen=True)
class Parameter:
    """One setting of a connector, as the provider's form shows it."""

    name: str
    label: str
    secret: bool = False
    required: bool = False
    default: str = ""
    help: str = ""


@dataclass(frozen=True)
class Account:
    """A provider as a connector sees it: its address, its plain parameters, its secrets already resolved."""

    slug: str
    base_url: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    time_zone: str = "UTC"


@dataclass(frozen=True)
class Column:
    """A column of a source or a portal. `name` is the field name, `label` what people read, `type` one of COLUMN_TYPES.

    `portal_type` is the type on a portal that has finer ones (int, float, date, timestamp, json, text), or "".
    """

    name: str
    type: str = "text"
    label: str = ""
    description: str = ""
    portal_type: str = ""


@dataclass(frozen=True)
class About:
    """What a portal is to say of a dataset, and of the one table of it that is published.

    `fields` are what the city knows of the dataset, by the names of the catalog: title, description, excerpt, limitations,
    collection_method, information_url, category, topics, civic_issues, department, section, unit, steward_email, licence,
    refresh_rate (in the words of the portal's public: "Annually"), tags (a list), organization, published_on, is_retired,
    and what `portal_fields` adds. `table` is the table's name there, `format` what the public is told that it is (csv, geojson), `origin` the
    address that its rows come from. `columns` has the dictionary. `key` names a row.
    """

    fields: Mapping[str, Any]
    table: str
    columns: tuple[Column, ...] = ()
    key: tuple[str, ...] = ()
    format: str = "csv"
    origin: str = ""


@dataclass(frozen=True)
class SourceState:
    """What a source says of a resource before a row is read.

    `version` changes whenever the rows may have changed (Socrata: rowsUpdatedAt, epoch seconds, as text); None = it does not say.
    `columns` is empty where the source gives files that only the standardize stage can read.
    `key` is the publisher's row identifier, or "". `refresh_rate` is the declared frequency in the source's words, or "".
    """

    title: str
    columns: tuple[Column, ...]
    version: str | None = None
    changed_at: datetime | None = None
    key: str = ""
    description: str = ""
    licence: str = ""
    refresh_rate: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FetchRequest:
    """Which rows of a resource are wanted.

    `columns` in the order wanted, empty only of a source whose `describe` names none. `window_column` with `starts_at`/`ends_at`
    (aware, half-open) asks for the rows of one span; `time_zone` says how a column without a zone is to be read. `order` names
    the columns of a stable order (the key, or the source's own row id). `page_size` rows a page, `in_flight` pages at once.
    `since_column` with `since` (a moment as that column writes it; an instant in UTC) asks for the rows at or after it, and for
    those that have no value there. `format` is "csv" or "json": what the source is asked to write. `options` are what the
    pipeline's format wants to know, such as {"file": "unmatched", "area": "Austin"}.
    """

    columns: tuple[Column, ...]
    order: tuple[str, ...] = ()
    window_column: str = ""
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    time_zone: str = "UTC"
    since_column: str = ""
    since: str = ""
    page_size: int = 50_000
    in_flight: int = 3
    format: str = "csv"
    asked_at: datetime | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Listed:
    """One thing that a source says it has, before any of it is fetched.

    `base` and `ext` are its identity within a span ("Austin", "unmatched.txt"), `starts_at`/`ends_at` the aware, half-open span.
    `label` is what the source calls it; `fingerprint` changes when its content may have, and is "" of a source that can't tell.
    `rows` where the source counts them.
    """

    base: str
    ext: str
    starts_at: datetime
    ends_at: datetime
    label: str
    fingerprint: str = ""
    rows: int | None = None


@dataclass(frozen=True)
class FetchedFile:
    """One file that a source gave, already whole on local disk at `path`; the caller moves it into the lake.

    A file whose metadata has a `role` helps to read the others; its `rows` are none of the request's. `rows` is None where only
    the stage that reads the file can count them, as of a zip. Of a thing that `listing` names, the metadata has its `base`, `ext`
    and `fingerprint`, and its local day as `collection_date` (2019-06-01).
    """

    name: str
    path: Path
    rows: int | None
    bytes: int
    sha256: str
    origin: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Missing:
    """What a source should have given and did not, while the rest came: its name, why, and the code of what went wrong."""

    name: str
    why: str
    code: str

    def __str__(self):
        return f"{self.name}: {self.why}"


@dataclass(frozen=True)
class Published:
    """The portal's own counts for one chunk. `errors` > 0 is a partial failure, whatever the HTTP status said."""

    created: int = 0
    updated: int = 0
    deleted: int = 0
    errors: int = 0
    reply: Mapping[str, Any] = field(default_factory=dict)


#: Called with (rows so far, rows expected or None) while a long transfer goes on.
Progress = Callable[[int, int | None], None]

REGISTRY: dict[str, type[Connector]] = {}


class Connector(ABC):
    """One kind of outside system. Subclass it with `kind` and `label` and it is registered."""

    kind: ClassVar[str] = ""
    label: ClassVar[str] = ""
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    can_fetch: ClassVar[bool] = False
    can_publish: ClassVar[bool] = False
    #: Rows can be taken off the portal one by one (`delete`), and all of them exchanged in one step (`replace`).
    can_delete: ClassVar[bool] = False
    can_replace: ClassVar[bool] = False
    #: What it sends of a column is of the type that it says: the files may be copied as such, and only what is odd is judged apart.
    vouches_for_types: ClassVar[bool] = False
    #: The source can say how many rows a request has before it gives them (`count`). What it can't say is not compared.
    can_count: ClassVar[bool] = True
    #: The source can say what it has, by name and span, before it is asked for any of it (`listing`).
    can_list: ClassVar[bool] = False
    #: It asks the devices of an inventory: `FetchRequest.options["devices"]` has the units of its newest edition.
    wants_devices: ClassVar[bool] = False
    #: What the portal says of a dataset is told by us (`introduce`): titles, notes, the dictionary.
    can_introduce: ClassVar[bool] = False
    #: The portal keeps nothing between publications: each one sends every row, from the first, whatever it sent before.
    publishes_whole: ClassVar[bool] = False
    #: What the last `fetch` or `listing` could not bring; the rest of it came.
    missing: Sequence[Missing] = ()
    #: "https://data.example.gov", "/srv/drop": what the address field asks for
    address_hint: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.kind or not cls.label:
            raise TypeError(f"{cls.__name__} must say its kind and its label")
        if cls.kind in REGISTRY:
            raise TypeError(f"two connectors say that they are {cls.kind!r}: {REGISTRY[cls.kind].__name__}, {cls.__name__}")
        REGISTRY[cls.kind] = cls

    def __init__(self, account: Account, door: Any):
        self.account = account
        self.door = door
        #: What `preflight` learned of the portal's dataset, where the portal says anything of it.
        self.described: SourceState | None = None

    @abstractmethod
    def test(self) -> str:
        """Ask the outside system one small question; return the answer in a sentence. Raises PipelineError.

        Where the account has a password, the question fails if it is wrong.
        """

    @property
    def web_address(self) -> str:
        """The address of the account, without a slash at its end: https unless the allow-list names its host. Raises SetupError."""
        address = self.account.base_url.strip().rstrip("/")
        if "://" not in address:
            address = f"https://{address}"
        if address.lower().startswith("http://") and not self.door.lists(address):
            raise SetupError(
                f"the address of provider {self.account.slug} begins with http://, which everyone on the way can read and change",
                code="plain-http",
                next_step=f"Write https:// in the address of provider {self.account.slug}.",
            )
        return address

    @property
    def whole_path(self) -> Path:
        """The address of the account as a folder of this machine. Raises SetupError if it does not begin at the root."""
        path = Path(self.account.base_url.strip())
        if not path.is_absolute():
            raise SetupError(
                f"the address of provider {self.account.slug} is {self.account.base_url!r}, which is not a folder's whole path",
                code="bad-address",
                next_step=f"Enter the folder of provider {self.account.slug} from the root on, like {self.address_hint}.",
            )
        return path

    def _cannot_fetch(self) -> SetupError:
        return SetupError(
            f"provider {self.account.slug} is of the kind {self.label!r}, and nothing can be fetched from one",
            code="cannot-fetch",
            next_step="Choose another provider for the pipeline, of a kind that gives rows.",
        )

    def _cannot_publish(self) -> SetupError:
        return SetupError(
            f"provider {self.account.slug} is of the kind {self.label!r}, and nothing can be published to one",
            code="cannot-publish",
            next_step="Choose another portal for the pipeline, of a kind that takes rows.",
        )

    def _cannot_change(self, what: str, code: str, next_step: str) -> SetupError:
        if not self.can_publish:
            return self._cannot_publish()
        return SetupError(f"provider {self.account.slug} is of the kind {self.label!r}, which cannot {what}", code=code, next_step=next_step)

    # a source
    def describe(self, resource: str) -> SourceState:
        """Metadata of `resource` in one request. Raises PipelineError."""
        raise self._cannot_fetch()

    def count(self, resource: str, request: FetchRequest) -> int:
        """How many rows the source says that the request has. Only a kind that `can_count` is asked."""
        raise self._cannot_fetch()

    def fetch(self, resource: str, request: FetchRequest, *, rows: int | None, workdir: Path, progress: Progress) -> Iterator[FetchedFile]:
        """Yield the files of the request in order; `rows` is what `count` said, None of a kind that can't count.

        Memory is one chunk of one page. Raises PipelineError; NoService where the source did not operate in the window.
        """
        raise self._cannot_fetch()

    def listing(self, resource: str, request: FetchRequest) -> Iterator[Listed]:
        """Yield what the source has, by span, then base and ext: from `starts_at` on and before `ends_at`, either of which may be None.

        Of the request also `window_column`, `time_zone` and `options` are read. Only a kind that `can_list` is asked. Raises PipelineError.
        """
        raise SetupError(
            f"provider {self.account.slug} is of the kind {self.label!r}, which cannot say what it has before it is asked for it",
            code="cannot-list",
            next_step="Choose days by hand, or compare from a later stage on.",
        )

    # a publisher
    def introduce(self, resource: str, about: About) -> tuple[str, ...]:
        """Make the portal say of the dataset what `about` says; make dataset and table where there are none. Rows are left alone.

        Returns what changed, each in words; () where the portal said all of it already. Only a kind that `can_introduce` is asked.
        Raises PipelineError.
        """
        raise self._cannot_change("be told what to say of a dataset", "cannot-introduce", "Edit the dataset on the portal itself.")

    def preflight(self, resource: str, *, columns: Iterable[Column], key: tuple[str, ...], replaces: bool = False) -> tuple[Column, ...]:
        """Check that the portal can take these columns by this key; return the portal's columns. Raises SetupError.

        `replaces`: all rows are exchanged each time, so a portal that can't tell rows apart will do.
        """
        raise self._cannot_publish()

    def open_publication(self, resource: str, columns: tuple[Column, ...]) -> None:  # noqa: B027  most portals have no beginning
        """Called once before the first `upsert` of a publication; `columns` in the order wanted. Raises PipelineError."""

    def upsert(self, resource: str, rows: list[dict[str, Any]]) -> Published:
        """Send one chunk of rows, by key. Raises PipelineError; a reply lost after commit is safe to send again."""
        raise self._cannot_publish()

    def delete(self, resource: str, rows: list[dict[str, Any]]) -> Published:
        """Take rows off, each told by its key only. Raises PipelineError.

        A row that is not there is as good as deleted: `errors` counts those that are still there afterwards.
        """
        raise self._cannot_change("delete single rows", "cannot-delete", "Choose to keep rows that are gone, or to replace all rows each time.")

    def replace(self, resource: str, columns: tuple[Column, ...], path: Path, rows: int) -> Published:
        """Exchange all rows for the `rows` of a CSV file (UTF-8, header of the names of `columns`), in one step. Raises PipelineError.

        Readers see the old rows or the new ones. A reply lost after the commit is safe to send again.
        """
        raise self._cannot_change("replace all rows in one step", "cannot-replace", "Choose upsert as the portal's mode.")

    def close_publication(self, resource: str) -> None:  # noqa: B027  nor an end
        """Called once after the last `upsert`, only if all of them succeeded: what was sent becomes visible as a whole."""

    def published_count(self, resource: str) -> int:
        """How many rows the portal holds now."""
        raise self._cannot_publish()

    def present(self, resource: str, rows: list[dict[str, Any]]) -> set[str]:
        """Which of these rows, each told by its one key column, the portal has: their keys as text. Raises PipelineError."""
        raise self._cannot_change("say which rows it has", "cannot-ask", "Compare the numbers of rows, or replace all rows each time.")
