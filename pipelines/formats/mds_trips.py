"""Pages of MDS trips, of any version from 0.2 to 2.1 → one internal trip, as the CSV that the later stages read.

A page is cut into its trips without being decoded, and each trip is decoded and judged (`mds_plain`, and where anything is odd
`mds_rules`) and written before the next: memory is the bytes of one page, and the ids of the block's trips. A page that strict
readers refuse (NaN, broken letters) is read whole by Python's own, so that one bad trip does not hide the others.

Which hour a trip belongs to is told by its end. What ended outside the block's hour is rejected: from 0.3 on an operator is asked
for exactly that hour, and one that answers with other trips is wrong, or has not understood. 0.2 can only be asked with a wider
window, for it leaves out what began before the window; a trip that ended inside that, but in another hour, belongs to that hour's
block, which asks for it as well. It is counted as `elsewhere` and is no news.

A trip that comes again with the same values, or as it was published earlier, is a duplicate. One that was published later is a
correction and goes on: the load keeps the later of the two. With other values and no later date it is rejected, for nobody can say
which are right (numbers made UUIDs may meet like that), and both are then there to be looked at.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from pipelines.errors import DataError
from pipelines.formats.mds_plain import Plain
from pipelines.formats.mds_rules import SECONDS_END, Problem, Rules, mend, odd_fields, version_of
from pipelines.formats.standard import Refused, Tally
from pipelines.formats.trip_columns import TRIP_COLUMNS

NAMES = tuple(name for name, _ in TRIP_COLUMNS)
PUBLISHED = NAMES.index("published_at")

# what may be odd about a trip: the kinds of the block's flags (the enrich stage adds outside-city)
ZERO, NEGATIVE, LONG = "zero-distance", "negative-distance", "long-distance"
BACKWARD, SHORT, DAYLONG = "end-before-start", "under-a-minute", "a-day-or-longer"
OUTSIDE, SWAPPED, NOWHERE = "outside-hour", "swapped-coordinates", "no-coordinates"
TWICE, NOT_RIDER = "duplicate-id", "not-a-rider"
#: Sixty miles: what upstream's monthly report called a long distance.
LONG_METRES = 96_560.64
#: MDS counts no trip of less than a minute, the public reports none of a day or more.
MINUTE, DAY = 60, 86_400

#: So many lines are written at once.
BATCH = 500
#: So many kinds of misfits are told apart in a report; the names of unknown keys are somebody else's, and may have no end.
MOST_KINDS = 200
OTHERS = "of other kinds"

#: What a page may hold at its top, where trips stand below `data` and where they do not.
_ENVELOPE = {False: {"version", "data", "links"}, True: {"version", "trips", "links", "last_updated", "ttl"}}
_UNDECODED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

#: The number that people read, the type, and the propulsion types joined by commas.
Vehicle = tuple[str, str, str]
#: The cells of a line, "" where nothing is known.
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Terms:
    """What the block and the operator's settings say of the trips.

    `version` is the one that is asked for, or "". The hour is half-open, in aware times; without it no trip is outside. Where the
    source is asked for more than the hour, `overlap_hours` says how much earlier it begins.
    `operator` names the operator where a trip does not (2.x), unless `operators` knows its id better. `extent` is the city's
    [west, south, east, north], by which swapped coordinates are told where both could be.
    """

    version: str = ""
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    overlap_hours: float = 0
    operator: str = ""
    operators: Mapping[str, str] = field(default_factory=dict)
    integer_ids: bool = False
    extent: tuple[float, float, float, float] | None = None


class _Trips(msgspec.Struct, forbid_unknown_fields=True):
    trips: list[msgspec.Raw]


class _Page(msgspec.Struct, forbid_unknown_fields=True):
    """A page of 0.2 to 1.2 with nothing beside its trips."""

    version: str
    data: _Trips


class _FlatPage(msgspec.Struct, forbid_unknown_fields=True):
    """A page of 2.x; what else it may have says nothing of its trips."""

    version: str
    trips: list[msgspec.Raw]
    links: Any = None
    last_updated: Any = None
    ttl: Any = None


class TripReader:
    """The trips of one block, page after page. `tally` and `report` say what became of them."""

    columns = TRIP_COLUMNS

    def __init__(self, terms: Terms, vehicles: Mapping[str, Vehicle] | None = None):
        self.terms = terms
        self.vehicles = vehicles or {}
        self.tally = Tally()
        self._hour = (_epoch(terms.starts_at), _epoch(terms.ends_at)) if terms.starts_at and terms.ends_at else None
        # by operator and trip: when it was published and a mark of the values, to tell the same trip again from another with its id;
        # texts, because the garbage collector would walk through tuples again and again
        self._seen: dict[str, str] = {}
        self._misfits: dict[tuple[str, str], _Misfit] = {}
        self._fit = 0
        self._versions: Counter[str] = Counter()
        self._judged_by: set[str] = set()

    def convert(self, page: Path, target: Path, about: Mapping[str, Any]) -> Iterator[Refused]:
        """Write the rows of one page to `target` (CSV, UTF-8, a header) and yield the trips that are refused.

        `about["version"]` is the version that was asked for, and `about["overlaps"]` whether for more than the hour. Raises DataError
        for a file that is no page of trips.
        """
        body, name = page.read_bytes(), page.name
        trips, rules, is_strict = self._open(name, body, str(about.get("version") or self.terms.version))
        plain, asked, tally = Plain(rules), self._asked() if about.get("overlaps") else None, self.tally
        # only then can a cell hold what no text may hold
        looks_closer = not is_strict or b"\\u0000" in body
        lines = [_line(NAMES)]
        with target.open("w", encoding="utf-8", newline="") as file:
            for number, raw in enumerate(trips, start=1):
                tally.rows_in += 1
                made = self._line_of(raw, plain, asked, looks_closer, name, number)
                if type(made) is str:
                    lines.append(made)
                    if len(lines) > BATCH:
                        file.write("".join(lines))
                        lines.clear()
                elif made:
                    tally.rejected += 1
                    yield made
            file.write("".join(lines))

    def report(self) -> dict[str, Any]:
        """What did not fit the version's schema, and what we minded beside it: kinds, how many trips, and where the first stands."""
        kinds = sorted(self._misfits.items(), key=lambda item: (-item[1].trips, item[0]))
        return {
            "versions": sorted(self._judged_by),
            "said": dict(sorted(self._versions.items())),
            "trips": self.tally.rows_in,
            "fit": self._fit,
            "misfits": [
                {"field": name, "what": what, "trips": found.trips, "refused": found.refused, "fits_schema": found.fits, "first": found.first}
                for (name, what), found in kinds
            ],
        }

    def _asked(self) -> tuple[float, float] | None:
        """The span of end times that the source was asked for: whole hours, the last moment of 0.2 belongs to it."""
        if self._hour is None:
            return None
        first, last = self._hour[0] // 3600 * 3600, -(-self._hour[1] // 3600) * 3600
        return first - self.terms.overlap_hours * 3600, last + 1

    # a page

    def _open(self, name: str, body: bytes, asked: str) -> tuple[Iterable[Any], Rules, bool]:
        """The trips of a page (undecoded, where it is strict JSON), the rules of its version, and whether it is strict JSON."""
        is_strict = True
        for usual in (_Page, _FlatPage):
            with suppress(*_UNDECODED):
                # all in one pass over the body; what is not as usual is looked at piece by piece
                page = _decode(body, type=usual)
                is_flat = usual is _FlatPage
                rules = self._rules(name, page.version, asked, is_flat=is_flat)
                self._look_at_envelope(name, set(), page.version, rules, is_strict)
                return page.trips if is_flat else page.data.trips, rules, is_strict
        try:
            envelope = _decode(body, type=dict[str, msgspec.Raw])
            said = _decode(envelope["version"]) if "version" in envelope else ""
            held = envelope
            if "data" in envelope:
                held = _decode(envelope["data"], type=dict[str, msgspec.Raw])
                envelope |= {f"data.{key}": value for key, value in held.items() if key != "trips"}
            trips = _decode(held["trips"], type=list[msgspec.Raw]) if "trips" in held else None
        except _UNDECODED:
            is_strict = False
            envelope, said, trips = _loosely(name, body)
        if trips is None:
            raise DataError(
                f"{name} is not a page of MDS trips: it has no list of trips.",
                code="bad-mds-page",
                next_step="Look at the raw file; if the provider answers with something else for this hour, tell the provider.",
            )
        rules = self._rules(name, said, asked, is_flat="data" not in envelope)
        self._look_at_envelope(name, set(envelope), said, rules, is_strict)
        return trips, rules, is_strict

    def _rules(self, name: str, said: Any, asked: str, *, is_flat: bool) -> Rules:
        """By the version that was asked for, if the page has its form: what an operator says of itself is often wrong. Else by what it says."""
        for version in (asked, said):
            if (rules := version_of(version)) and rules.is_flat == is_flat:
                return rules
        raise DataError(
            f"{name} is written in the form of MDS {'2.x' if is_flat else '0.2 to 1.2'}, says version {said!r}, and version {asked!r} was asked for.",
            code="mds-version",
            next_step="Set the provider's version to the one that it really answers with.",
        )

    def _look_at_envelope(self, name: str, keys: set[str], said: Any, rules: Rules, is_strict: bool) -> None:
        self._versions[str(said)] += 1
        self._judged_by.add(rules.version)
        problems = [Problem("(page)", f"has a key {key!r} that this version does not have") for key in sorted(keys - _ENVELOPE[rules.is_flat])]
        if "links" in keys and not rules.is_flat and rules.version not in ("0.2", "0.3"):
            problems.append(Problem("(page)", "has links, which this version forbids"))
        if not (type(said) is str and rules.said.fullmatch(said)):
            problems.append(Problem("(page)", f"says version {str(said)[:20]!r}"))
        if not is_strict:
            problems.append(Problem("(page)", "is not strict JSON"))
        for problem in problems:
            self._note(problem, name, refused=False)

    # a trip

    def _line_of(self, raw: Any, plain: Plain, asked: tuple[float, float] | None, looks_closer: bool, page: str, number: int) -> str | Refused | None:
        """The line of a trip, why it is refused, or None of one that is counted and not written."""
        tally, hour, rules = self.tally, self._hour, plain.rules
        problems: list[Problem] = []
        trip = plain.trip(raw) if type(raw) is msgspec.Raw else None
        if trip is not None and (hour is None or hour[0] <= _seconds(trip.end_time) < hour[1]):
            row = self._plain_flat_row(trip, problems) if rules.is_flat else _plain_row(trip, rules.propulsion)
        else:
            sent = _decoded(raw)
            if type(sent) is not dict:
                return self._refuse([_NO_TRIP if sent is _BROKEN else _NO_OBJECT], _as_it_came(raw, sent), page, number)
            trip = sent
            if odd := odd_fields(sent, rules):
                trip, problems = mend(sent, odd, rules, integer_ids=self.terms.integer_ids)
            if hour and (told := trip.get("end_time")) is not None:
                ended = _seconds(told)
                if not hour[0] <= ended < hour[1]:
                    if asked and asked[0] <= ended < asked[1]:
                        tally.elsewhere += 1
                        return None
                    tally.flags[OUTSIDE] += 1
                    problems.append(Problem("end_time", "is outside the hour", is_error=True, fits=True))
            if problems and any(problem.is_error for problem in problems):
                return self._refuse(problems, sent, page, number)
            row = self._flat_row(trip, problems) if rules.is_flat else _routed_row(trip, rules.propulsion)
        if looks_closer and (name := _no_text(row)):
            words = "holds a character that is no text"
            return self._refuse([*problems, Problem(name, words, is_error=True)], _decoded(raw), page, number)
        line = _PLAIN_LINE % row
        if line.count(",") != _COMMAS or '"' in line or "\r" in line or line.count("\n") != 1:
            line = _line(row)
        key, mark = f"{row[0]} {row[2]}", f"{row[PUBLISHED]} {hash(line)}"
        if before := self._seen.get(key):
            tally.flags[TWICE] += 1
            published, earlier = row[PUBLISHED], before.partition(" ")[0]
            if mark == before or published < earlier:
                tally.duplicates += 1
                return None
            if published == earlier:
                words = "came before in this hour, with other values"
                return self._refuse([*problems, Problem("trip_id", words, is_error=True, fits=True)], _decoded(raw), page, number)
        self._seen[key] = mark
        tally.rows_out += 1
        if problems:
            for problem in problems:
                self._note(problem, f"{page} trip {number:,}", refused=False)
        else:
            self._fit += 1
        self._flag(row)
        return line

    def _vehicle_of(self, device: str, problems: list[Problem]) -> Vehicle:
        vehicle = self.vehicles.get(device)
        if vehicle is None:
            problems.append(Problem("device_id", "is of no vehicle that /vehicles told us", fits=True))
            return _UNKNOWN_VEHICLE
        return vehicle

    def _plain_flat_row(self, trip: Any, problems: list[Problem]) -> Row:
        """The row of a 2.x trip, with what `/vehicles` says of its vehicle."""
        start, end, operator = trip.start_location, trip.end_location, trip.provider_id
        return (
            operator,
            self.terms.operators.get(operator) or self.terms.operator,
            trip.trip_id,
            trip.device_id,
            *self._vehicle_of(trip.device_id, problems),
            _instant(trip.start_time),
            _instant(trip.end_time),
            start.lng,
            start.lat,
            end.lng,
            end.lat,
            trip.duration,
            trip.distance,
            *_flat_rest(start.horizontal_accuracy, trip.standard_cost, trip.actual_cost, trip.currency, trip.publication_time),
            " ".join(filter(None, (trip.parking_category, trip.parking_verification_url))),
            (",".join(trip.trip_type) if type(trip.trip_type) is list else trip.trip_type) or "",
        )

    def _flat_row(self, trip: dict[str, Any], problems: list[Problem]) -> Row:
        """As `_plain_flat_row`, of a trip that had to be mended."""
        start, end, operator, get = trip["start_location"], trip["end_location"], trip["provider_id"], trip.get
        kind = get("trip_type")
        return (
            operator,
            self.terms.operators.get(operator) or self.terms.operator,
            trip["trip_id"],
            trip["device_id"],
            *self._vehicle_of(trip["device_id"], problems),
            _instant(trip["start_time"]),
            _instant(trip["end_time"]),
            start["lng"],
            start["lat"],
            end["lng"],
            end["lat"],
            trip["duration"],
            trip["distance"],
            *_flat_rest(start.get("horizontal_accuracy"), get("standard_cost"), get("actual_cost"), get("currency"), get("publication_time")),
            " ".join(filter(None, (get("parking_category"), get("parking_verification_url")))),
            (",".join(kind) if type(kind) is list else kind) or "",
        )

    def _flag(self, row: Row) -> None:
        """Count what is odd about a trip that is taken."""
        start_lon, start_lat, end_lon, end_lat, seconds, metres = row[9:15]
        flags = self.tally.flags
        if metres <= 0:
            flags[NEGATIVE if metres else ZERO] += 1
        elif metres >= LONG_METRES:
            flags[LONG] += 1
        if row[8] < row[7]:
            flags[BACKWARD] += 1
        if not MINUTE <= seconds < DAY:
            flags[DAYLONG if seconds >= DAY else SHORT] += 1
        if start_lon == "" or end_lon == "":
            flags[NOWHERE] += 1
        elif self._is_swapped(start_lon, start_lat) or self._is_swapped(end_lon, end_lat):
            flags[SWAPPED] += 1
        if row[21] and row[21] != "rider":
            flags[NOT_RIDER] += 1

    def _is_swapped(self, lon: float, lat: float) -> bool:
        """Whether a point makes sense only the other way round: on the globe, or in the city where we know its extent."""
        if extent := self.terms.extent:
            west, south, east, north = extent
            return not (west <= lon <= east and south <= lat <= north) and west <= lat <= east and south <= lon <= north
        return not -90 <= lat <= 90 and -90 <= lon <= 90

    # what is told

    def _refuse(self, problems: list[Problem], record: dict[str, Any], page: str, number: int) -> Refused:
        for problem in problems:
            self._note(problem, f"{page} trip {number:,}", refused=True)
        errors = [problem for problem in problems if problem.is_error]
        name = errors[0].field
        reason = ", ".join(f"{problem.field} {problem.words}".strip() for problem in errors)
        value = json.dumps(record[name], ensure_ascii=False) if name in record else ""
        key = " · ".join(str(record[part]) for part in ("provider_id", "trip_id") if part in record)
        return Refused(number, reason, name, value, key, record)

    def _note(self, problem: Problem, where: str, *, refused: bool) -> None:
        kind = (problem.field, problem.words)
        if kind not in self._misfits and len(self._misfits) >= MOST_KINDS:
            kind = (OTHERS, "")
        found = self._misfits.setdefault(kind, _Misfit(where, problem.fits))
        found.trips += 1
        found.refused += refused and problem.is_error
        if not refused:
            self.tally.warnings[" ".join(kind).strip()] += 1


@dataclass
class _Misfit:
    first: str
    fits: bool
    trips: int = 0
    refused: int = 0


_decode = msgspec.json.decode
_BROKEN = object()
_NO_TRIP = Problem("", "The trip cannot be decoded", is_error=True)
_NO_OBJECT = Problem("", "The trip is not an object", is_error=True)
_UNKNOWN_VEHICLE: Vehicle = ("", "", "")
#: A line that needs no quotes, as nearly all do.
_PLAIN_LINE = ",".join(["%s"] * len(NAMES)) + "\n"
_COMMAS = len(NAMES) - 1
_QUOTED = frozenset(',"\r\n')


def _line(row: Row) -> str:
    """The cells as a line of CSV, in quotes where they must be."""
    texts = map(str, row)
    return ",".join('"' + text.replace('"', '""') + '"' if not _QUOTED.isdisjoint(text) else text for text in texts) + "\n"


def _flat_rest(accuracy: Any, standard_cost: Any, actual_cost: Any, currency: str | None, published: float | None) -> Row:
    return (
        accuracy if type(accuracy) in (int, float) else "",
        "" if standard_cost is None else standard_cost,
        "" if actual_cost is None else actual_cost,
        currency or "",
        "" if published is None else _instant(published),
    )


def _plain_row(trip: Any, propulsion: str) -> Row:
    """The row of a trip of 0.2 to 1.2."""
    features = trip.route.features
    start, end, published = features[0].geometry.coordinates, features[-1].geometry.coordinates, trip.publication_time
    return (
        trip.provider_id,
        trip.provider_name,
        trip.trip_id,
        trip.device_id,
        trip.vehicle_id,
        trip.vehicle_type,
        ",".join(getattr(trip, propulsion)),
        _instant(trip.start_time),
        _instant(trip.end_time),
        *start,
        *end,
        trip.trip_duration,
        trip.trip_distance,
        trip.accuracy,
        "" if (cost := trip.standard_cost) is None else cost,
        "" if (cost := trip.actual_cost) is None else cost,
        trip.currency or "",
        "" if published is None else _instant(published),
        trip.parking_verification_url or "",
        "",
    )


def _routed_row(trip: dict[str, Any], propulsion: str) -> Row:
    """As `_plain_row`, of a trip that had to be mended."""
    features = trip["route"]["features"]
    start, end = features[0]["geometry"]["coordinates"], features[-1]["geometry"]["coordinates"]
    get = trip.get
    published = get("publication_time")
    return (
        trip["provider_id"],
        trip["provider_name"],
        trip["trip_id"],
        trip["device_id"],
        trip["vehicle_id"],
        trip["vehicle_type"],
        ",".join(trip[propulsion]),
        _instant(trip["start_time"]),
        _instant(trip["end_time"]),
        start[0],
        start[1],
        end[0],
        end[1],
        trip["trip_duration"],
        trip["trip_distance"],
        "" if (accuracy := get("accuracy")) is None else accuracy,
        "" if (cost := get("standard_cost")) is None else cost,
        "" if (cost := get("actual_cost")) is None else cost,
        get("currency") or "",
        "" if published is None else _instant(published),
        get("parking_verification_url") or "",
        "",
    )


def _decoded(raw: Any) -> Any:
    """The trip as plain values; `_BROKEN` of one that can't be decoded."""
    if type(raw) is not msgspec.Raw:
        return raw
    try:
        return _decode(raw)
    except _UNDECODED:
        return _BROKEN


def _as_it_came(raw: Any, sent: Any) -> dict[str, Any]:
    """What is kept of something that is no trip."""
    return {"(undecoded)": bytes(raw).decode("utf-8", "backslashreplace")} if sent is _BROKEN else {"(not an object)": sent}


def _loosely(name: str, body: bytes) -> tuple[dict[str, Any], Any, list[Any] | None]:
    """What a strict reader refuses, as Python reads it: a NaN is the text "NaN", a byte that is no letter a surrogate. Raises DataError."""
    try:
        page = json.loads(body.decode("utf-8-sig", "surrogateescape"), parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{name} is not JSON: {error}.", code="bad-json-page", next_step="Run the block again from extract, so that the page is fetched anew."
        ) from error
    if type(page) is not dict:
        return {}, "", None
    held = page.get("data", page)
    trips = held.get("trips") if type(held) is dict else None
    return page, page.get("version", ""), trips if type(trips) is list else None


def read_vehicles(pages: Iterable[Path]) -> dict[str, Vehicle]:
    """What the pages of `/vehicles` say: device id to its vehicle. Of a device that is told twice, the last. Raises DataError."""
    found: dict[str, Vehicle] = {}
    for path in pages:
        try:
            page = _decode(path.read_bytes())
        except _UNDECODED as error:
            raise DataError(f"{path.name} is not JSON: {error}.", code="bad-json-page", next_step="Run the block again from extract.") from error
        held = page.get("data", page) if type(page) is dict else page
        vehicles = held.get("vehicles") if type(held) is dict else None
        if vehicles is None and type(held) is dict and "device_id" in held:
            # asked for one, some answer with that one
            vehicles = [held]
        if type(vehicles) is not list:
            raise DataError(
                f"{path.name} is not a page of MDS vehicles: it has no list of vehicles.",
                code="bad-mds-page",
                next_step="Look at the raw file, and tell the provider.",
            )
        for vehicle in vehicles:
            if type(vehicle) is dict and type(device := vehicle.get("device_id")) is str:
                propulsions = vehicle.get("propulsion_types", vehicle.get("propulsion_type"))
                if type(propulsions) is list:
                    propulsions = ",".join(map(str, propulsions))
                found[device] = (_text(vehicle.get("vehicle_id")), _text(vehicle.get("vehicle_type")), _text(propulsions))
    return found


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _no_text(row: Row) -> str:
    """The name of the first cell that no text file may hold (a NUL, or bytes that were no UTF-8), or ""."""
    for name, cell in zip(NAMES, row, strict=True):
        if type(cell) is str and ("\x00" in cell or any("\ud800" <= letter <= "\udfff" for letter in cell)):
            return name
    return ""


# times


def _epoch(moment: datetime) -> int:
    return int(moment.timestamp())


@lru_cache(maxsize=4096)
def _hour_text(hours: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:")


_IN_HOUR = tuple(f"{second // 60:02}:{second % 60:02}Z" for second in range(3600))


def _seconds(told: float) -> int:
    return int(told) if told < SECONDS_END else int(told // 1000)


def _instant(told: float) -> str:
    """2020-02-11T15:08:25Z of 1581433705000 or of 1581433705.9."""
    seconds = int(told) if told < SECONDS_END else int(told // 1000)
    return _hour_text(seconds // 3600) + _IN_HOUR[seconds % 3600]
