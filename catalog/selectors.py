"""What the pages of the lake print: the files, what they weigh, and the first rows of one; and those of boundary layers and of the inventory."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from django.core.paginator import Page, Paginator
from django.db.models import Count, Func, IntegerField, Max, Q, Sum

from catalog import asked, boundaries, inventory, maps, search
from catalog.lake import CHUNK, PipelineError, lake
from catalog.models import AuditEntry, BoundaryLayer, CatalogEntry, Dataset, InventoryEdition, Layer

FILES_A_PAGE, PREVIEW_ROWS, PREVIEW_BYTES, PREVIEW_COLUMNS = 100, 50, 512 * 1024, 60
AREAS_A_PAGE = UNITS_A_PAGE = 100
#: A layer of more areas than this is no ground for a map of points: it would weigh more than they do.
MOST_BENEATH = 500
#: A cell is cut for the eye; the file itself is one link away.
CELL = 300


@dataclass(frozen=True)
class LakeFilters:
    """What a list of files is narrowed to; "" and None mean all. `day` is the day that the data is about, in the city's zone.

    `since` (inclusive) and `until` (exclusive) are of the day on which the data begins. In `source`, `base` and `ext`, `%` and `*`
    stand for any letters, as in `catalog search`.
    """

    dataset: str = ""
    layer: str = ""
    day: date | None = None
    standing: str = "live"
    search: str = ""
    problem: str = ""
    source: str = ""
    base: str = ""
    ext: str = ""
    since: date | None = None
    until: date | None = None

    @property
    def is_narrow(self) -> bool:
        """Whether anything is asked of the fields that are folded away at first."""
        return any((self.source, self.base, self.ext, self.since, self.until))

    @classmethod
    def of(cls, given) -> LakeFilters:
        """From a query string; what can't be read is said in `problem` and left out."""
        days, problems = zip(*(asked.day(given.get(name, "")) for name in ("day", "since", "until")), strict=True)
        standing = given.get("standing", "live")
        return cls(
            dataset=given.get("dataset", ""),
            layer=given.get("layer", "") if given.get("layer", "") in Layer.values else "",
            day=days[0],
            standing=standing if standing in search.STANDINGS else "live",
            search=given.get("q", "").strip(),
            problem=" ".join(filter(None, problems)),
            since=days[1],
            until=days[2],
            **{name: given.get(name, "").strip() for name in ("source", "base", "ext")},
        )

    def files(self):
        """The entries that the filters ask for, newest data first."""
        entries = CatalogEntry.objects.select_related("dataset").order_by("-window_start", "source", "layer", "id_base", "-pk")
        if self.dataset:
            entries = entries.filter(dataset__slug=self.dataset)
        if self.layer:
            entries = entries.filter(layer=self.layer)
        if self.day:
            start, end = asked.span(self.day)
            entries = entries.filter(window_start__lt=end, window_end__gt=start)
        if self.standing == "live":
            entries = entries.live()
        elif self.standing == "withdrawn":
            entries = entries.exclude(withdrawn_at=None)
        for condition in search.conditions(self.source, self.base, self.ext):
            entries = entries.filter(condition)
        if self.since:
            entries = entries.filter(window_start__gte=asked.span(self.since)[0])
        if self.until:
            entries = entries.filter(window_start__lt=asked.span(self.until)[0])
        if self.search:
            words = Q(pointer__icontains=self.search) | Q(sha256__istartswith=self.search) | Q(source__icontains=self.search)
            entries = entries.filter(words)
        return entries


@dataclass(frozen=True)
class LayerTotal:
    layer: str
    files: int
    bytes: int
    rows: int
    withdrawn_files: int
    withdrawn_bytes: int
    newest: datetime | None


@dataclass(frozen=True)
class LakePage:
    """`free_space` is in bytes, or None where nobody can say (a bucket); `trouble` says why the lake itself can't be asked."""

    filters: LakeFilters
    page: Page
    found_files: int
    found_bytes: int
    found_rows: int
    totals: list[LayerTotal]
    datasets: list[tuple[str, str]]
    place: str
    free_space: int | None
    trouble: str

    @property
    def all_files(self) -> int:
        return sum(total.files for total in self.totals)

    @property
    def all_bytes(self) -> int:
        return sum(total.bytes + total.withdrawn_bytes for total in self.totals)


def lake_page(filters: LakeFilters, page: str | int = 1) -> LakePage:
    """The list of files, in four queries."""
    files = filters.files()
    found = files.order_by().aggregate(files=Count("pk"), bytes=Sum("bytes"), rows=Sum("rows"))
    live = Q(withdrawn_at=None)
    totals = [
        LayerTotal(
            layer=row["layer"],
            files=row["n"],
            bytes=row["size"] or 0,
            rows=row["lines"] or 0,
            withdrawn_files=row["gone"],
            withdrawn_bytes=row["gone_size"] or 0,
            newest=row["newest"],
        )
        for row in CatalogEntry.objects.order_by("layer")
        .values("layer")
        .annotate(
            n=Count("pk", filter=live),
            size=Sum("bytes", filter=live),
            lines=Sum("rows", filter=live),
            gone=Count("pk", filter=~live),
            gone_size=Sum("bytes", filter=~live),
            newest=Max("created_at"),
        )
    ]
    totals.sort(key=lambda total: Layer.values.index(total.layer))
    paginator = Paginator(files, FILES_A_PAGE)
    paginator.count = found["files"]  # counted above, with the sums
    place, free, trouble = "", None, ""
    try:
        shelf = lake()
        place, free = shelf.describe(), shelf.free_space()
    except PipelineError as error:
        trouble = f"{error.message} {error.next_step}".strip()
    return LakePage(
        filters=filters,
        page=paginator.get_page(page),
        found_files=found["files"],
        found_bytes=found["bytes"] or 0,
        found_rows=found["rows"] or 0,
        totals=totals,
        datasets=list(Dataset.objects.order_by("title").values_list("slug", "title")),
        place=place,
        free_space=free,
        trouble=trouble,
    )


@dataclass(frozen=True)
class Preview:
    """The first rows of a file. `header` empty: it is no table, and `text` has its beginning. `trouble` says what could not be read.

    `nameless` columns stand right of the last name, where a row has more values than the header.
    """

    header: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    nameless: int = 0
    text: str = ""
    is_cut: bool = False
    oddities: list[str] = field(default_factory=list)
    trouble: str = ""


def preview(stream: BinaryIO, name: str) -> Preview:
    """The beginning of a file as a table or as text; at most PREVIEW_BYTES are read, whatever is in it. Raises PipelineError when the lake does."""
    beginning, cut, trouble = _beginning(stream, name)
    text = beginning.decode("utf-8-sig", errors="replace")
    oddities = []
    # a character cut in two by our own limit is not the file's fault
    if "\ufffd" in (text[:-1] if cut else text):
        oddities.append("Some bytes are not UTF-8; they are shown as �.")
    if "\x00" in text:
        oddities.append("It holds NUL bytes, which are shown as ␀.")
    text = text.replace("\x00", "␀")
    if not text:
        return Preview(oddities=oddities, trouble=trouble or "The file is empty: it has no bytes.")
    if name.lower().endswith("json") and (shown := _document(text, cut, oddities, trouble)):
        return shown
    if ".csv" not in name.lower():
        if _is_binary(text):
            return Preview(oddities=["It is not text, so there are no lines to show. Download it to look inside."], trouble=trouble)
        return Preview(text=text[:8000], is_cut=cut or len(text) > 8000, oddities=oddities, trouble=trouble)
    return _table(text, cut, oddities, trouble)


def _is_binary(text: str) -> bool:
    """Whether more than a tenth of the beginning are no characters: pictures, archives, programs."""
    head = text[:8000]
    return sum(letter in "\ufffd␀" or (letter < " " and letter not in "\t\n\r\f") for letter in head) > len(head) / 10


#: The line of a document after which its rows begin, one a line.
ROWS_BEGIN = re.compile(r'^"\w+":\[$', re.MULTILINE)


def _document(text: str, cut: bool, oddities: list[str], trouble: str) -> Preview | None:
    """The first rows of a document of sensors as a table; None of what is no document, or begins so long that none of its rows is here."""
    begin = ROWS_BEGIN.search(text) if text.startswith('{"header":') else None
    if begin is None:
        return None
    lines = text[begin.end() + 1 :].split("\n", PREVIEW_ROWS + 1)
    rows: list[dict] = []
    for line in lines[:PREVIEW_ROWS]:
        try:
            row = json.loads(line.removesuffix(","))
        except ValueError:
            break  # the end of the rows, or of what was read
        if not isinstance(row, dict):
            return None
        rows.append(row)
    if not rows and cut:
        return None
    names = list(dict.fromkeys(name for row in rows for name in row))
    if len(names) > PREVIEW_COLUMNS:
        oddities = [*oddities, f"The first {PREVIEW_COLUMNS} of {len(names)} columns are shown."]
    return Preview(
        header=[_cell(name) for name in names[:PREVIEW_COLUMNS]],
        rows=[[_cell(_as_text(row.get(name))) for name in names[:PREVIEW_COLUMNS]] for row in rows],
        text="" if names else text[:8000],
        is_cut=cut or lines[len(rows) :][:1] not in (["]"], ["],"], ["]}"]),
        oddities=oddities,
        trouble=trouble,
    )


def _as_text(value) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table(text: str, cut: bool, oddities: list[str], trouble: str) -> Preview:
    lines: list[list[str]] = []
    # said each time: the limit is one for the whole process, and a load in it needs a larger one
    csv.field_size_limit(PREVIEW_BYTES)
    try:
        for line in csv.reader(io.StringIO(text, newline="")):
            lines.append(line)
            if len(lines) > PREVIEW_ROWS + 1:
                break
    except csv.Error as error:
        trouble = f"It can't be read as CSV after row {max(len(lines) - 1, 0):,}: {error}."
    more = len(lines) > PREVIEW_ROWS + 1
    if cut and not more and lines:
        half = lines.pop()  # cut by our own limit
        more = True
        if max(map(len, half)) > PREVIEW_BYTES / 2:
            oddities.append(f"Row {len(lines):,} has a cell so large that the preview ends before it.")
    if not lines:
        return Preview(
            text=text[:8000],
            is_cut=True,
            oddities=oddities,
            trouble=trouble or "Its first row alone is larger than what is shown here.",
        )
    header, rows = lines[0], lines[1 : PREVIEW_ROWS + 1]
    ragged = [number for number, row in enumerate(rows, 1) if len(row) != len(header)]
    if ragged:
        oddities.append(f"{len(ragged)} of these rows have more or fewer values than the header, the first is row {ragged[0]}.")
    if len(header) > PREVIEW_COLUMNS:
        oddities.append(f"The first {PREVIEW_COLUMNS} of {len(header)} columns are shown.")
    return Preview(
        header=[_cell(value) for value in header[:PREVIEW_COLUMNS]],
        rows=[[_cell(value) for value in row[:PREVIEW_COLUMNS]] for row in rows],
        nameless=max(0, min(max(map(len, rows), default=0), PREVIEW_COLUMNS) - len(header)),
        is_cut=more,
        oddities=oddities,
        trouble=trouble,
    )


def _cell(value: str) -> str:
    return value if len(value) <= CELL else f"{value[:CELL]}…"


def _beginning(stream: BinaryIO, name: str) -> tuple[bytes, bool, str]:
    """At most PREVIEW_BYTES of what the file says, whether there is more, and what went wrong while unpacking."""
    if not name.lower().endswith(".gz"):
        read = stream.read(PREVIEW_BYTES + 1)
        return read[:PREVIEW_BYTES], len(read) > PREVIEW_BYTES, ""
    unpack = zlib.decompressobj(wbits=31)
    out = b""
    try:
        while len(out) <= PREVIEW_BYTES and not unpack.eof and (packed := stream.read(64 * 1024)):
            # max_length: a small file that unpacks to gigabytes must not fill the memory
            out += unpack.decompress(packed, PREVIEW_BYTES + 1 - len(out))
    except zlib.error as error:
        return out, False, f"It can't be unpacked: {error}."
    if len(out) <= PREVIEW_BYTES and not unpack.eof:
        return out, False, "It is cut short: the packed file ends in the middle."
    return out[:PREVIEW_BYTES], len(out) > PREVIEW_BYTES, ""


@dataclass(frozen=True)
class FilePage:
    """A file, what it says, and what is known of it; `is_unreadable`: the lake could not give it."""

    entry: CatalogEntry
    preview: Preview
    place: str
    newer: CatalogEntry | None
    facts: list[tuple[str, str]]
    is_unreadable: bool = False


def file_page(entry: CatalogEntry) -> FilePage:
    """One file with its first rows, in one query; where the lake can't give it, the preview says so."""
    is_unreadable = False
    try:
        shelf = lake()
        place = shelf.describe()
        with shelf.open(entry.pointer) as stream:
            # of an entry that is told by base and ext the place has the whole name
            shown = preview(stream, PurePosixPath(entry.pointer).name)
    except PipelineError as error:
        place, shown, is_unreadable = "", Preview(trouble=f"{error.message} {error.next_step}".strip()), True
    newer = None
    if entry.withdrawn_at:
        same = {name: getattr(entry, name) for name in ("source", "layer", "id_base", "id_ext", "window_start")}
        newer = CatalogEntry.objects.filter(**same).live().first()
    return FilePage(
        entry=entry,
        preview=shown,
        place=place,
        newer=newer,
        facts=[(str(key), _fact(value)) for key, value in entry.metadata.items()],
        is_unreadable=is_unreadable,
    )


def _fact(value) -> str:
    if isinstance(value, dict):
        value = ", ".join(f"{name} {inner}" for name, inner in value.items())
    if isinstance(value, list):
        value = ", ".join(" ".join(map(str, item)) if isinstance(item, list) else str(item) for item in value)
    text = str(value)
    return text if len(text) <= 500 else f"{text[:500]}…"


@dataclass(frozen=True)
class Check:
    """Whether a file is still the one that was catalogued."""

    is_equal: bool
    text: str


def check(entry: CatalogEntry) -> Check:
    """Read the whole file again and compare its fingerprint; flat in memory."""
    try:
        with lake().open(entry.pointer) as stream:
            digest, size = hashlib.sha256(), 0
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except PipelineError as error:
        return Check(False, f"It could not be checked: {error.message} {error.next_step}".strip())
    if digest.hexdigest() == entry.sha256:
        return Check(True, f"Equal: {size:,} bytes, and their sha256 is the catalogued one.")
    return Check(
        False,
        f"Not equal: {size:,} bytes with sha256 {digest.hexdigest()[:12]}…, catalogued were {entry.bytes:,} bytes with {entry.sha256[:12]}…. "
        "Somebody changed the file; run its block again from extract.",
    )


# boundary layers


@dataclass(frozen=True)
class LayerLine:
    """A boundary layer in the list, with the titles of the pipelines that look areas up in it."""

    layer: BoundaryLayer
    pipelines: list[tuple[str, str]]


def boundary_lines() -> list[LayerLine]:
    """Every layer, in three queries."""
    layers = BoundaryLayer.objects.defer("content").prefetch_related("enrichments__pipeline")
    return [LayerLine(layer, sorted({(one.pipeline.title, one.pipeline.slug) for one in layer.enrichments.all()})) for layer in layers]


@dataclass(frozen=True)
class AreaLine:
    """An area in the table beside the map. `size` is in square kilometres, `bounds` west, south, east, north in degrees."""

    key: str
    label: str
    size: float
    bounds: tuple[float, float, float, float]


@dataclass(frozen=True)
class Asked:
    """A point that somebody asked about: as it was typed, what is wrong with it or where it lies, and its place in the picture."""

    lon: str
    lat: str
    key: str = ""
    words: str = ""
    is_odd: bool = False
    spot: tuple[int, int] | None = None


@dataclass(frozen=True)
class LayerPage:
    """A layer with its picture and its areas; without them `trouble` says why. `uses` are (pipeline, slug, new column, longitude, latitude)."""

    layer: BoundaryLayer
    drawn: maps.Map | None
    page: Page | None
    found: int
    size: float
    picked: str
    search: str
    asked: Asked | None
    uses: list[tuple[str, str, str, str, str]]
    uploads: list[AuditEntry]
    trouble: str = ""

    @property
    def picked_shape(self) -> maps.Drawn | None:
        return next((shape for shape in self.drawn.shapes if shape.key == self.picked), None) if self.drawn and self.picked else None


def area_lines(layer: BoundaryLayer) -> list[AreaLine]:
    """The areas of a layer in the order of their keys. Raises PipelineError."""
    areas = boundaries.load(layer)
    sizes = boundaries.square_kilometres(areas)
    return [
        AreaLine(key, label, size, tuple(map(float, bounds)))
        for key, label, size, bounds in zip(areas.keys, areas.labels, sizes, areas.bounds, strict=True)
    ]


def layer_page(layer: BoundaryLayer, given) -> LayerPage:
    """A layer as `given` (a query string) asks: `area` picked, `q` searched, a point `lon`, `lat`, a `page`. Two queries,
    and one for the file where this process has not read it yet."""
    uses = [
        (one.pipeline.title, one.pipeline.slug, one.column, one.lon_column, one.lat_column) for one in layer.enrichments.select_related("pipeline")
    ]
    uploads = list(AuditEntry.objects.filter(kind="boundary", target=layer.slug)[:10])
    wanted = given.get("q", "").strip()
    try:
        lines = area_lines(layer)
        areas = boundaries.load(layer)
    except PipelineError as error:
        return LayerPage(layer, None, None, 0, 0.0, "", wanted, None, uses, uploads, f"{error.message} {error.next_step}".strip())
    drawn = maps.draw(areas)
    asked_point = _asked_point(areas, drawn, given.get("lon", "").strip(), given.get("lat", "").strip())
    found = [line for line in lines if wanted.lower() in line.key.lower() or wanted.lower() in line.label.lower()]
    picked = given.get("area", "") or (asked_point.key if asked_point else "")
    return LayerPage(
        layer=layer,
        drawn=drawn,
        page=Paginator(found, AREAS_A_PAGE).get_page(given.get("page", 1)),
        found=len(found),
        size=sum(line.size for line in lines),
        picked=picked if picked in areas.keys else "",
        search=wanted,
        asked=asked_point,
        uses=uses,
        uploads=uploads,
    )


def _asked_point(areas: boundaries.Areas, drawn: maps.Map, lon: str, lat: str) -> Asked | None:
    if not lon and not lat:
        return None
    try:
        east, north = float(lon), float(lat)
    except ValueError:
        return Asked(lon, lat, words="Write longitude and latitude in degrees, like -97.7428 and 30.2680.", is_odd=True)
    [key] = areas.locate([east], [north])
    if key is None:
        return Asked(lon, lat, words="lies in no area of this layer.", is_odd=True, spot=maps.place(areas, drawn, east, north))
    label = areas.labels[areas.keys.index(key)]
    words = f"lies in {key}" + (f", {label}." if label != key else ".")
    return Asked(lon, lat, key=key, words=words, spot=maps.place(areas, drawn, east, north))


# the inventory


def _users() -> dict[str, list[tuple[str, str]]]:
    """Title and slug of the pipelines that each inventory is matched with."""
    found: dict[str, list[tuple[str, str]]] = {}
    named = Dataset.objects.filter(pipelines__inventory__gt="").order_by("pipelines__title")
    for code, title, slug in named.values_list("pipelines__inventory", "pipelines__title", "pipelines__slug"):
        found.setdefault(code, []).append((title, slug))
    return found


@dataclass(frozen=True)
class InventoryLine:
    """An inventory in the list: its newest edition, how many there are, and who uses it. `newest` None: pipelines name it, and it is not there."""

    code: str
    newest: InventoryEdition | None
    devices: int
    editions: int
    pipelines: list[tuple[str, str]]


def _counted(editions):
    """Editions with the number of their devices in place of the devices."""
    return editions.defer("units").annotate(devices=Func("units", function="jsonb_array_length", output_field=IntegerField()))


def inventory_lines() -> list[InventoryLine]:
    """Every inventory that is there or is asked for, in three queries."""
    users = _users()
    times = dict(InventoryEdition.objects.order_by().values_list("code").annotate(n=Count("pk")))
    newest = {one.code: one for one in _counted(InventoryEdition.objects.order_by("code", "-dated_at").distinct("code"))}
    return [
        InventoryLine(code, newest.get(code), newest[code].devices if code in newest else 0, times.get(code, 0), users.get(code, []))
        for code in sorted({*newest, *users})
    ]


#: What the table of an edition shows, as far as any device has it; its CSV has every field.
UNIT_COLUMNS = (
    ("device_status", "Status"), ("device_ip", "Address"), ("ip_comm_status", "Answers"), ("atd_device_id", "Device id"),
    ("kits_id", "KITS id"), ("atd_location_id", "Place id"), ("device_type", "Type"),
)  # fmt: skip


@dataclass(frozen=True)
class UnitLine:
    """A device in the table: its number in the edition, what people call it, its place in words, and a cell for each of `unit_columns`."""

    number: int
    name: str
    place: str
    lon: float | None
    lat: float | None
    cells: list[str]

    @property
    def words(self) -> str:
        return " ".join([self.name, self.place, *self.cells]).lower()


def unit_columns(units: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(field, heading) of the columns in which any of these devices has something."""
    return [(name, label) for name, label in UNIT_COLUMNS if any(unit.get(name) not in (None, "") for unit in units)]


def unit_lines(units: Sequence[Mapping[str, Any]]) -> list[UnitLine]:
    """The devices of an edition as a table has them."""
    lines = []
    columns = unit_columns(units)
    for number, unit in enumerate(units, 1):
        lon, lat = unit.get("lon"), unit.get("lat")
        is_point = isinstance(lon, int | float) and isinstance(lat, int | float)
        streets = [str(unit[name]) for name in inventory.STREETS if unit.get(name)]
        cells = ["" if unit.get(name) is None else str(unit[name]) for name, _ in columns]
        lines.append(UnitLine(number, inventory.name_of(unit), " / ".join(streets), lon if is_point else None, lat if is_point else None, cells))
    return lines


def unit_map(lines: Sequence[UnitLine]) -> maps.SpotMap | None:
    """The devices that have a place, over the layer of fewest areas that lies beneath them; None when none has one."""
    points = [
        (str(line.number), f"{line.name}: {line.place}" if line.place else line.name, line.lon, line.lat) for line in lines if line.lon is not None
    ]
    return maps.draw_spots(points, beneath([(lon, lat) for _, _, lon, lat in points])) if points else None


def beneath(points: Sequence[tuple[float, float]]) -> boundaries.Areas | None:
    """The areas to draw beneath points (longitude, latitude): those of the layer with the fewest that holds the middle of them; None for none."""
    if not points:
        return None
    east, north = (sorted(side)[len(points) // 2] for side in zip(*points, strict=True))
    for layer in BoundaryLayer.objects.defer("content").filter(areas__gt=1, areas__lte=MOST_BENEATH).order_by("areas", "slug"):
        west, south, most_east, most_north = layer.extent
        if west <= east <= most_east and south <= north <= most_north:
            try:
                return boundaries.load(layer)
            except PipelineError:
                continue  # its own page says what is wrong with it; these points have their picture without it
    return None


@dataclass(frozen=True)
class InventoryPage:
    """An inventory: one edition of it with its devices, and all its editions. `changes` is against the edition before it, in words."""

    code: str
    edition: InventoryEdition
    devices: int
    placed: int
    page: Page
    found: int
    search: str
    columns: list[str]
    drawn: maps.SpotMap | None
    picked: maps.Spot | None
    changes: inventory.Difference | None
    before: InventoryEdition | None
    editions: list[InventoryEdition]
    pipelines: list[tuple[str, str]]
    uploads: list[AuditEntry]

    @property
    def href(self) -> str:
        return f"?edition={self.edition.pk}&"

    @property
    def title(self) -> str:
        return f"inventory {self.code}"

    @property
    def is_same(self) -> bool:
        return self.before is not None and self.before.sha256 == self.edition.sha256


def inventory_page(code: str, given) -> InventoryPage | None:
    """An inventory as `given` (a query string) asks: an `edition` by number (else the newest), `q` searched, a `unit` picked, a `page`.

    None when it has no such edition. Six queries, and those of the layer beneath the map.
    """
    editions = list(_counted(InventoryEdition.objects.filter(code=code).order_by("-dated_at")))
    number = asked.number(given.get("edition"))
    place = next((place for place, one in enumerate(editions) if number in (None, one.pk)), None)
    if place is None:
        return None
    edition = InventoryEdition.objects.get(pk=editions[place].pk)
    before = InventoryEdition.objects.get(pk=editions[place + 1].pk) if place + 1 < len(editions) else None
    lines = unit_lines(edition.units)
    wanted = given.get("q", "").strip()
    found = [line for line in lines if wanted.lower() in line.words]
    drawn = unit_map(lines)
    return InventoryPage(
        code=code,
        edition=edition,
        devices=len(lines),
        placed=len(drawn.spots) if drawn else 0,
        page=Paginator(found, UNITS_A_PAGE).get_page(given.get("page", 1)),
        found=len(found),
        search=wanted,
        columns=[label for _, label in unit_columns(edition.units)],
        drawn=drawn,
        picked=next((spot for spot in drawn.spots if spot.key == given.get("unit")), None) if drawn else None,
        changes=inventory.difference(before.units, edition.units) if before else None,
        before=before,
        editions=editions,
        pipelines=_users().get(code, []),
        uploads=list(AuditEntry.objects.filter(kind="inventory", target=code)[:10]),
    )


@dataclass(frozen=True)
class InventoryPreview:
    """A file before it is stored: its devices, what was not taken as it stood, and how it differs from the edition before its date.

    `standing`: "" where the date is free, "same" where the very records are there, "other" where others are.
    """

    code: str
    dated_at: datetime
    file: str
    lines: list[UnitLine]
    devices: int
    placed: int
    notes: list[str]
    more_notes: int
    columns: list[str]
    drawn: maps.SpotMap | None
    changes: inventory.Difference | None
    before: InventoryEdition | None
    is_same: bool
    standing: str


NOTES_SHOWN, UNITS_PREVIEWED = 30, 20


def inventory_preview(code: str, dated_at: datetime, file: str, reading: inventory.Reading) -> InventoryPreview:
    """What a steward looks at before a file becomes an edition, in three queries and those of the layer beneath the map."""
    editions = InventoryEdition.objects.filter(code=code)
    there = editions.filter(dated_at=dated_at).first()
    before = there or editions.filter(dated_at__lt=dated_at).order_by("-dated_at").first()
    lines = unit_lines(reading.units)
    drawn = unit_map(lines)
    is_same = before is not None and before.sha256 == inventory.fingerprint(reading.units)
    return InventoryPreview(
        code=code,
        dated_at=dated_at,
        file=file,
        lines=lines[:UNITS_PREVIEWED],
        devices=len(lines),
        placed=len(drawn.spots) if drawn else 0,
        notes=reading.notes[:NOTES_SHOWN],
        more_notes=max(len(reading.notes) - NOTES_SHOWN, 0),
        columns=[label for _, label in unit_columns(reading.units)],
        drawn=drawn,
        changes=inventory.difference(before.units, reading.units) if before else None,
        before=before,
        is_same=is_same,
        standing="" if there is None else "same" if is_same else "other",
    )
