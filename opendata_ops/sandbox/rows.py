"""Rows that look like a real city's, made by number: the same seed and the same number give the same row, always.

The shares, ties, nulls and oddities are those measured on the real datasets (facts/socrata.md §2.7 and §4): every 10,000
service requests have exactly the measured numbers of types, states and empty cells, and the pets are exactly the licences
of the published species × year matrix.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import Any

from .tables import Column, Dataset

Row = tuple[Any, ...]

# service requests like MyLA311

LA311_COLUMNS = tuple(
    Column(label.lower(), kind, label)
    for label, kind in (
        ("SRNumber", "text"),
        ("CreatedDate", "calendar_date"),
        ("UpdatedDate", "calendar_date"),
        ("ActionTaken", "text"),
        ("Owner", "text"),
        ("RequestType", "text"),
        ("Status", "text"),
        ("RequestSource", "text"),
        ("CreatedByUserOrganization", "text"),
        ("MobileOS", "text"),
        ("Anonymous", "text"),
        ("AssignTo", "text"),
        ("ServiceDate", "calendar_date"),
        ("ClosedDate", "calendar_date"),
        ("AddressVerified", "text"),
        ("ApproximateAddress", "text"),
        ("Address", "text"),
        ("HouseNumber", "text"),
        ("Direction", "text"),
        ("StreetName", "text"),
        ("Suffix", "text"),
        ("ZipCode", "text"),
        ("Latitude", "number"),
        ("Longitude", "number"),
        ("Location", "point"),
        ("TBMPage", "number"),
        ("TBMColumn", "text"),
        ("TBMRow", "number"),
        ("APC", "text"),
        ("CD", "number"),
        ("CDMember", "text"),
        ("NC", "number"),
        ("NCName", "text"),
        ("PolicePrecinct", "text"),
    )
)
#: requests of each type in 10,000, with who answers for it
_TYPES = (
    ("Bulky Items", "BOS", 4470),
    ("Graffiti Removal", "OCB", 2628),
    ("Illegal Dumping Pickup", "BOS", 901),
    ("Metal/Household Appliances", "BOS", 833),
    ("Homeless Encampment", "BOS", 405),
    ("Electronic Waste", "BOS", 335),
    ("Dead Animal Removal", "BOS", 172),
    ("Other", "ITA", 115),
    ("Single Streetlight Issue", "BSL", 76),
    ("Multiple Streetlight Issue", "BSL", 59),
    ("Report Water Waste", "LADWP", 6),
)
_STATES = (("Closed", 9723), ("Cancelled", 244), ("Open", 16), ("Pending", 15), ("Referred Out", 2))
_SOURCES = (
    ("Call", 4548),
    ("Mobile App", 2299),
    ("Driver Self Report", 2088),
    ("Self Service", 1014),
    ("Email", 48),
    ("Council's Office", 2),
    ("Letter", 1),
)
_ORGANIZATIONS = (
    ("BOS", 3709),
    ("Self Service", 3028),
    ("OCB", 1794),
    ("ITA", 964),
    ("Self Service_SAN", 266),
    ("Proactive Insert", 216),
    ("LASAN", 9),
    ("BSL", 8),
    ("BSS", 4),
    ("Council's Office", 2),
)
_MOBILES = ((None, 7701), ("iOS", 1595), ("Android", 704))
_ASSIGNED = (
    (None, 120),
    ("NC", 1586),
    ("EV", 1553),
    ("WV", 1331),
    ("SLA", 1298),
    ("WLA", 916),
    ("GAPBH", 528),
    ("SGB", 416),
    ("HB", 402),
    ("GAP", 362),
    ("PGS", 281),
    ("HBT", 279),
    ("WVA", 178),
    ("NEGB", 147),
    ("CCAC", 123),
    ("KYCC", 480),
)
#: (council district, its member, planning commission, neighborhood council number and name, police precinct, zip, latitude, longitude)
_AREAS = (
    (6, "Nury Martinez", "South Valley APC", 19, "LAKE BALBOA NC", "WEST VALLEY", "91406", 34.194, -118.499),
    (13, "Mitch O'Farrell", "Central APC", 53, "RAMPART VILLAGE NC", "OLYMPIC", "90004", 34.072, -118.288),
    (8, "Marqueece Harris-Dawson", "South Los Angeles APC", 81, "EMPOWERMENT CONGRESS CENTRAL AREA NDC", "77TH STREET", "90047", 33.989, -118.303),
    (7, "Monica Rodriguez", "North Valley APC", 5, "SYLMAR NC", "MISSION", "91342", 34.307, -118.449),
    (14, "Jose Huizar", "East Los Angeles APC", 50, "BOYLE HEIGHTS NC", "HOLLENBECK", "90033", 34.044, -118.209),
    (14, "Jose Huizar", "Central APC", 52, "DOWNTOWN LOS ANGELES", "CENTRAL", "90013", 34.045, -118.247),
    (3, "Bob Blumenfield", "South Valley APC", 16, "WOODLAND HILLS-WARNER CENTER NC", "TOPANGA", "91367", 34.170, -118.611),
    (15, "Joe Buscaino", "Harbor APC", 93, "WILMINGTON NC", "HARBOR", "90744", 33.787, -118.262),
    (10, "Herb J. Wesson Jr.", "Central APC", 55, "WILSHIRE CENTER - KOREATOWN NC", "OLYMPIC", "90006", 34.055, -118.297),
    (12, "John Lee", "North Valley APC", 99, "CHATSWORTH NC", "DEVONSHIRE", "91311", 34.257, -118.592),
    (5, "Paul Koretz", "West Los Angeles APC", 58, "MID CITY WEST CC", "WILSHIRE", "90036", 34.068, -118.349),
    (2, "Paul Krekorian", "South Valley APC", 24, "NOHO NC", "NORTH HOLLYWOOD", "91601", 34.168, -118.378),
    (4, "David Ryu", "Central APC", 36, "LOS FELIZ NC", "NORTHEAST", "90027", 34.110, -118.289),
    (11, "Mike Bonin", "West Los Angeles APC", 68, "VENICE NC", "PACIFIC", "90291", 33.991, -118.465),
    (1, "Gilbert Cedillo", "East Los Angeles APC", 41, "HISTORIC HIGHLAND PARK NC", "NORTHEAST", "90042", 34.115, -118.192),
    (
        9,
        "Curren D. Price Jr.",
        "South Los Angeles APC",
        86,
        "COMMUNITY AND NEIGHBORS FOR NINTH DISTRICT UNITY (CANNDU)",
        "NEWTON",
        "90011",
        34.007,
        -118.258,
    ),
)
_STREETS = (
    ("VANOWEN", "ST"),
    ("WESTMORELAND", "AVE"),
    ("SLAUSON", "AVE"),
    ("43RD", "PL"),
    ("GERTRUDE", "ST"),
    ("HOLLYWOOD", "BLVD"),
    ("MAIN", "ST"),
    ("BONNIE BRAE", "ST"),
    ("COLBATH", "AVE"),
    ("VALDEZ", "DR"),
    ("HORACE", "ST"),
    ("BROWNING", "BLVD"),
    ("ALETHEA", "DR"),
    ("ST LOUIS", "ST"),
    ("CAÑADA", "BLVD"),
    ("VENTURA CANYON", "AVE"),
)

_BLOCK = 10_000
_PLACES = 4096
#: this many requests in a row share, each 480, the minute of their last change
_TIE, _TIE_EVERY = 24, 480
#: where in a day a request falls, by the hour: few at night, most in the morning
_HOURS = (6, 3, 2, 2, 3, 8, 22, 48, 74, 86, 88, 84, 76, 72, 70, 66, 60, 50, 42, 36, 30, 24, 16, 10)


def _spread(shares: tuple[tuple[Any, ...], ...], chance: random.Random) -> list[Any]:
    """A list in which each value comes exactly as often as its share says, in a seeded order."""
    listed = [entry[0] if len(entry) == 2 else entry[:-1] for entry in shares for _ in range(entry[-1])]
    assert len(listed) == _BLOCK, f"the shares add up to {len(listed)}"
    chance.shuffle(listed)
    return listed


def _cases(chance: random.Random) -> list[Row]:
    """10,000 courses that a request may take, in the measured shares.

    Each: actiontaken … assignto (nine values), days to the service (or None), minutes to the closing (None: stays open;
    -1: closed at the midnight before it was made), minutes from the closing to the last change.
    """
    columns = [_spread(shares, chance) for shares in (_TYPES, _STATES, _SOURCES, _ORGANIZATIONS, _MOBILES, _ASSIGNED)]
    cases = []
    left_open = 18
    for number, ((kind, owner), status, source, organization, mobile, assigned) in enumerate(zip(*columns, strict=True)):
        action = "SR Created" if number > 2 else ("SR Updated", "SR Updated", "Information Provided")[number]
        # nearly half of the graffiti is painted over within minutes, the rest is a matter of days
        quick = kind == "Graffiti Removal" and chance.random() < 0.45
        closing: int | None = chance.randrange(1, 11) if quick else int(chance.triangular(180, 14_400, 2_000))
        if status in ("Open", "Pending"):
            closing = None
        elif status == "Closed" and left_open:
            closing, left_open = None, left_open - 1
        elif status == "Closed" and 100 <= number < 112:
            closing = -1
        later = 0 if chance.random() < 0.9 else chance.randrange(1, 3_000)
        service = chance.randrange(0, 7)
        cases.append(
            (action, owner, kind, status, source, organization, mobile, "Y" if chance.random() < 0.1372 else "N", assigned, service, closing, later)
        )
    for number in chance.sample(range(_BLOCK), 555):
        # of those without a day of service
        cases[number] = (*cases[number][:9], None, *cases[number][10:])
    return cases


def _places(chance: random.Random) -> list[Row]:
    """Addresses: the twenty columns from addressverified to policeprecinct, with the measured holes and odd texts."""
    places = []
    for number in range(_PLACES):
        district, member, commission, council, council_name, precinct, zipcode, latitude, longitude = chance.choice(_AREAS)
        street, suffix = chance.choice(_STREETS)
        house, direction = str(chance.randrange(100, 19_999)), chance.choice("NSEW")
        address = f"{house} {direction} {street} {suffix}, {zipcode}"
        verified = "Y"
        if number % 16 == 1:
            cross = chance.choice(_STREETS)
            address, house, direction = f"{street} {suffix} AT {' '.join(cross)}, {zipcode}", None, None
        if number % 512 == 100:
            address = f'{house} {direction} {street} {suffix} "REAR", {zipcode}'
        if number % 1024 == 200:
            address = f"{house} {direction} {street} {suffix}\nUNIT 4, {zipcode}"
        if number % 1024 == 300:
            address = f"{house} {direction} {street} {suffix} – Büro № 3 \\ ☂, {zipcode}"
        lat, lon = f"{latitude + chance.uniform(-0.02, 0.02):.8f}", f"{longitude + chance.uniform(-0.02, 0.02):.7f}"
        point = {"type": "Point", "coordinates": [float(lon), float(lat)]}
        if number % 2048 == 9:
            zipcode = "0"
        where: Row = (zipcode, lat, lon, point, str(chance.randrange(480, 825)), chance.choice("ABCDEFGHJ"), str(chance.randrange(1, 8)))
        who: Row = (commission, str(district), None if chance.random() < 0.18 else member, str(council), council_name, precinct)
        if number % 911 == 5:
            verified, address = "N", f"{house}-{house} {street} {suffix}, LOS ANGELES, CA, USA"
            where, who = (None,) * 7, (None,) * 6
        elif number % 293 == 7:
            who = (*who[:3], None, None, who[5])
        places.append((verified, "N", address, house, direction, street, suffix, *where, *who))
    return places


def _mixed(number: int, seed: int) -> int:
    """A number scrambled to 64 bits (splitmix64)."""
    z = (number * 0x9E3779B97F4A7C15 + seed * 0xD1B54A32D192ED03 + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    return z ^ (z >> 27)


def _day_curve() -> list[int]:
    """For each of 1,440 equal shares of a day's requests, and its end, the second of the day at which it begins."""
    total, ends, hour, done = sum(_HOURS), [], 0, 0
    for share in range(1441):
        wanted = share * total / 1440
        while hour < 23 and done + _HOURS[hour] <= wanted:
            done += _HOURS[hour]
            hour += 1
        ends.append(min(86_399, int((hour + (wanted - done) / _HOURS[hour]) * 3600)))
    return ends


class ServiceRequests:
    """Requests like MyLA311's: `self(i)` gives the 34 values of request i (LA311_COLUMNS).

    `count` requests are spread over `days` from `starts`, never earlier as i grows, more by day than by night; `srnumber`
    grows with i. Requests past `count` go on at the same pace, so a number means the same request in any longer span.
    """

    def __init__(self, count: int, *, starts: date = date(2020, 1, 1), days: int = 366, seed: int = 0):
        self.count = count
        self.starts = starts
        self.days = days
        self.seed = seed
        chance = random.Random(f"la311 {seed}")
        self._cases = _cases(chance)
        self._places = _places(chance)
        self._curve = _day_curve()
        self._clock = [f"T{minute // 60:02d}:{minute % 60:02d}:" for minute in range(1440)]
        self._dates: dict[int, str] = {}

    def _date(self, day: int) -> str:
        found = self._dates.get(day)
        if found is None:
            found = self._dates[day] = (self.starts + timedelta(days=day)).isoformat()
        return found

    def _minute(self, minute: int) -> str:
        day, minute = divmod(minute, 1440)
        return f"{self._date(day)}{self._clock[minute]}00.000"

    def created(self, i: int) -> tuple[int, int]:
        """(day from `starts`, second of that day) of request i."""
        day, second = divmod(i * self.days * 86_400 // self.count, 86_400)
        share, rest = divmod(second, 60)
        start = self._curve[share]
        return day, start + (self._curve[share + 1] - start) * rest // 60

    def first_on(self, day: date) -> int:
        """The number of the first request of a day."""
        return -(-(day - self.starts).days * self.count // self.days)

    def __call__(self, i: int) -> Row:
        block, place_in_block = divmod(i, _BLOCK)
        # a one-to-one walk through the 10,000 cases, another one in each block
        case = self._cases[(place_in_block * 7919 + block * 613) % _BLOCK]
        scrambled = _mixed(i, self.seed)
        place = self._places[scrambled % _PLACES]
        day, second = self.created(i)
        minute = day * 1440 + second // 60
        service, closing, later = case[9], case[10], case[11]
        updated = minute + (later if closing is None else closing + later)
        if closing is None:
            closed = None
        elif closing < 0:
            closed, updated = f"{self._date(day)}T00:00:00.000", minute
        else:
            closed = self._minute(minute + closing)
        if i % _TIE_EVERY < _TIE:
            group = i // _TIE_EVERY
            last = self.created((group + 1) * _TIE_EVERY)[0]
            updated = (last + 11) * 1440 + 405 + group % 60
        number = 1_523_590_121 + i * 10 + (scrambled >> 13) % 10
        created = f"{self._date(day)}{self._clock[second // 60]}{second % 60:02d}.000"
        serviced = None if service is None else f"{self._date(day + service)}T00:00:00.000"
        if place_in_block == 4322 and serviced:
            # one request in ten thousand is to be served in a thousand years: a slip of the hand in the real data
            serviced = "3020-01-06T00:00:00.000"
        return (f"1-{number}", created, created if updated == minute else self._minute(updated), *case[:9], serviced, closed, *place)

    def at(self, i: int, now: str) -> Row:
        """Request i as it stood at `now` (a calendar date text): still open when its closing is to come."""
        row = self(i)
        updated, closed = row[2], row[13]
        if updated <= now and (closed is None or closed <= now):
            return row
        if closed is not None and closed <= now:
            return (*row[:2], max(closed, row[1]), *row[3:])
        status = "Pending" if row[5] == "Other" else "Open"
        return (*row[:2], row[1], *row[3:6], status, *row[7:13], None, *row[14:])


def la311_rows(count: int, *, starts: date = date(2020, 1, 1), days: int = 366, seed: int = 0) -> Iterator[Row]:
    """`count` requests of the columns LA311_COLUMNS, one after the other."""
    return map(ServiceRequests(count, starts=starts, days=days, seed=seed), range(count))


def la311(id: str, count: int, *, starts: date = date(2020, 1, 1), days: int = 366, seed: int = 0, name: str = "", **about: Any) -> Dataset:
    """A dataset of `count` requests that are made when they are read: a million cost no memory and no start-up."""
    make = ServiceRequests(count, starts=starts, days=days, seed=seed)
    name = name or f"MyLA311 Service Request Data {starts.year}"
    return Dataset.made(id, name, LA311_COLUMNS, count, make, key="srnumber", grows={"srnumber": True, "createddate": False}, **about)


# pet licences like Seattle's

PET_COLUMNS = tuple(
    Column(name, kind, label, display="%B %d %Y")
    for name, kind, label in (
        ("license_issue_date", "calendar_date", "License Issue Date"),
        ("license_number", "text", "License Number"),
        ("animal_s_name", "text", "Animal's Name"),
        ("species", "text", "Species"),
        ("primary_breed", "text", "Primary Breed"),
        ("secondary_breed", "text", "Secondary Breed"),
        ("zip_code", "text", "ZIP Code"),
    )
)
#: year → licences of (Cat, Dog, Goat, Pig): 51,754 in all
PET_MATRIX = {
    2003: (1, 0, 0, 0),
    2006: (1, 0, 0, 0),
    2008: (0, 2, 0, 0),
    2011: (0, 1, 0, 0),
    2014: (1, 2, 0, 0),
    2015: (36, 66, 0, 0),
    2016: (60, 139, 0, 0),
    2017: (3037, 4858, 9, 0),
    2018: (8416, 16959, 22, 3),
    2019: (5277, 12855, 7, 2),
}
_BREEDS = {
    "Cat": (
        ("Domestic Shorthair", 9825),
        ("Domestic Medium Hair", 2053),
        ("Domestic Longhair", 1330),
        ("American Shorthair", 889),
        ("Siamese", 671),
        ("LaPerm", 343),
        ("Maine Coon", 279),
        ("Mix", 275),
        ("Russian Blue", 143),
        ("Ragdoll", 138),
    ),
    "Dog": (
        ("Retriever, Labrador", 4649),
        ("Retriever, Golden", 1869),
        ("Chihuahua, Short Coat", 1836),
        ("Terrier", 988),
        ("German Shepherd", 984),
        ("Australian Shepherd", 874),
        ("Border Collie", 845),
        ("Poodle, Miniature", 805),
        ("Terrier, American Pit Bull", 670),
        ("Australian Cattle Dog", 633),
        ("Shih Tzu", 614),
        ("Poodle, Standard", 553),
        ("Pug", 534),
        ("Mix", 536),
        ("Beagle", 510),
    ),
    "Goat": (("Miniature", 35), ("Standard", 3)),
    "Pig": (("Pot-Bellied", 4), ("Miniature", 1)),
}
_ZIPS = (
    ("98115", 4563),
    ("98103", 4402),
    ("98117", 3790),
    ("98125", 2758),
    ("98122", 2460),
    ("98107", 2415),
    ("98116", 2344),
    ("98118", 2336),
    ("98199", 2205),
    ("98105", 2026),
    ("98126", 1969),
    ("98109", 1940),
    ("98112", 1883),
    ("98106", 1874),
    ("98144", 1845),
    ("98119", 1793),
    ("98133", 1738),
    ("98136", 1622),
    ("98102", 1577),
    ("98108", 1008),
    ("98121", 946),
)
_PET_NAMES = (
    *("Lucy", "Luna", "Charlie", "Bella", "Max", "Daisy", "Lily", "Jack", "Molly", "Stella", "Lola", "Buddy"),
    *("Sophie", "Cooper", "Oliver", "Maggie", "Penny", "Ruby", "Milo", "Henry", "Olive", "Sadie", "Pepper", "Rosie"),
    *("Chloe", "Bailey", "Zoe", "Oscar", "Leo", "Gracie", "Scout", "Coco", "Toby", "Rocky", "Ginger", "Riley"),
    *("Gus", "Shadow", "Tucker", "Hazel", "Finn", "Winnie"),
)
#: 29 names that are not ASCII, as measured; the last is exactly 50 characters long
_FOREIGN_NAMES = (
    *("Señor Guapo", "Zoë", "Zoë", "Maelström", "Zoé", "Tündi", "Téo", "Möbius", "S’morZ", "Aché", "Völkl Aikau Kudrna"),
    *("Ms. Eliot Carter “L-E”", "Schrödie", "Latté Frise Blanche Shapiro", "Torbjörnen", "Léon", "Jóna", "Muñe", "Rädda"),
    *("Aster Nácre", "Capitán (Capi)", "Georgia O’Teeffe", "Søren", "Clünas", "Mishka “Missy”", "Schrödinger", "Deià", "Zoé"),
    "Nuit\xa0Ahathoor\xa0Hecate\xa0Sappho\xa0Jezebel Crowley the 2d",
)
_QUOTED_NAMES = ('Leonard "Leo"', 'Ted "Theodore" Logan', 'Max ("Moose")', '"Mama" Maya', 'Guapa - "Livi"', "O'Malley", "Xi'an", "D'Artagnan")


def seattle_pets(seed: int = 0) -> list[Row]:
    """51,754 licences of the columns PET_COLUMNS: exactly PET_MATRIX, with the measured repeats, holes and odd names.

    20 licence numbers come twice (for two animals), 358 names, 27,652 secondary breeds and 328 ZIP codes are empty, 68 are
    ZIP+4, some lie far from Seattle, 29 names are not ASCII and one has exactly 50 characters.
    """
    chance = random.Random(f"pets {seed}")
    animals = [
        (year, species)
        for year, counts in PET_MATRIX.items()
        for species, count in zip(("Cat", "Dog", "Goat", "Pig"), counts, strict=True)
        for _ in range(count)
    ]
    chance.shuffle(animals)
    total = len(animals)
    names = chance.choices(_PET_NAMES, k=total)
    odd = chance.sample(range(total), 358 + len(_FOREIGN_NAMES) + len(_QUOTED_NAMES))
    for at, name in zip(odd, [None] * 358 + list(_FOREIGN_NAMES + _QUOTED_NAMES), strict=True):
        names[at] = name
    zips = chance.choices([zipcode for zipcode, _ in _ZIPS], [weight for _, weight in _ZIPS], k=total)
    odd = chance.sample(range(total), 328 + 68 + 5)
    for at, number in zip(odd, range(len(odd)), strict=True):
        zips[at] = (
            None if number < 328 else f"{zips[at]}-{1000 + number}" if number < 396 else ("77018", "94107", "2445", "98223", "00000")[number - 396]
        )
    single = set(chance.sample(range(total), 27_652))
    repeated = chance.sample(range(total), 40)
    numbers = [f"S{100_000 + i}" if i % 3 else str(20_000 + i) for i in range(total)]
    for first, second in zip(repeated[:20], repeated[20:], strict=True):
        numbers[second] = numbers[first]
    second_breeds = ("Mix", "Mix", "Mix", "Poodle, Standard", "Poodle, Miniature", "Retriever, Labrador", "Terrier", "Border Collie")
    breeds = {species: ([breed for breed, _ in shares], [weight for _, weight in shares]) for species, shares in _BREEDS.items()}
    rows = []
    for i, (year, species) in enumerate(animals):
        # the licences of 2019 end on 15 April, as the published table does
        issued = date(year, 1, 1) + timedelta(days=chance.randrange(105 if year == 2019 else 365))
        breed = chance.choices(*breeds[species])[0]
        rows.append((f"{issued}T00:00:00.000", numbers[i], names[i], species, breed, None if i in single else chance.choice(second_breeds), zips[i]))
    return rows


# smaller tables of a practice city: columns are said in city.py; some dates and keys are wrong on purpose


def _address(chance: random.Random) -> tuple[str, str, str, str, str]:
    """(address, zip, council district, latitude, longitude)"""
    district, _, _, _, _, _, zipcode, latitude, longitude = chance.choice(_AREAS)
    street, suffix = chance.choice(_STREETS)
    spot = f"{latitude + chance.uniform(-0.02, 0.02):.6f}", f"{longitude + chance.uniform(-0.02, 0.02):.6f}"
    return f"{chance.randrange(100, 19_999)} {chance.choice('NSEW')} {street} {suffix}", zipcode, str(district), *spot


def building_permits(today: date, count: int = 2000, seed: int = 0) -> list[Row]:
    """Permits of the last two years. 7 issue dates are no dates, 5 permit numbers come twice, 3 valuations are words."""
    chance = random.Random(f"permits {seed}")
    works = (
        "New single family dwelling",
        "Kitchen remodel",
        "Re-roof, 24 squares",
        'Sign "OPEN", illuminated',
        "Solar PV, 6.2 kW",
        "Demolition – garage",
    )
    rows = []
    for i in range(count):
        applied = today - timedelta(days=chance.randrange(730))
        issued = applied + timedelta(days=chance.randrange(2, 120))
        done = issued + timedelta(days=chance.randrange(5, 300))
        work = chance.choice(works)
        status = "Final" if done <= today else "Issued" if issued <= today else "In review"
        issued_text = {50: "2026-02-30", 51: "pending", 52: "00/00/0000", 53: "13/45/2026", 54: "TBD", 55: "2025-11-31", 56: "n/a"}.get(
            i % 1000 if i < 1000 else -1, f"{issued}T00:00:00.000" if issued <= today else None
        )
        valuation = "see plans" if i in (300, 301, 302) else None if i % 97 == 3 else str(chance.randrange(500, 900_000, 250))
        address, zipcode, district, latitude, longitude = _address(chance)
        rows.append(
            (
                f"B-{today.year - 1}-{10_000 + (i if i % 400 != 399 else i - 1)}",
                chance.choice(("Building", "Electrical", "Plumbing", "Mechanical", "Demolition")),
                work,
                status,
                f"{applied}T{chance.randrange(8, 17):02d}:{chance.randrange(60):02d}:00.000",
                issued_text,
                f"{done}T00:00:00.000" if done <= today else None,
                valuation,
                chance.choice(("Ace Builders, Inc.", "Núñez & Sons", "O'Neill Roofing", "Owner", None)),
                address,
                zipcode,
                district,
                latitude,
                longitude,
            )
        )
    return rows


def street_trees(today: date, count: int = 5000, seed: int = 0) -> list[Row]:
    """Street trees. 6 planting dates are no dates, 8 tree numbers come twice, 4 diameters are words."""
    chance = random.Random(f"trees {seed}")
    kinds = (
        ("Coast live oak", "Quercus agrifolia"),
        ("Crape myrtle", "Lagerstroemia indica"),
        ("Mexican fan palm", "Washingtonia robusta"),
        ("Jacaranda", "Jacaranda mimosifolia"),
        ("London plane", "Platanus × hispanica"),
        ("Chinese elm", "Ulmus parvifolia"),
    )
    wrong = {700: "0000-00-00", 701: "1998-13-01", 702: "unknown", 703: "before 1970", 704: "2019-02-29", 705: "??"}
    rows = []
    for i in range(count):
        name, latin = chance.choice(kinds)
        planted = today - timedelta(days=chance.randrange(30, 25_000))
        address, zipcode, district, latitude, longitude = _address(chance)
        diameter = "multi-stem" if i in (1500, 1501, 1502, 1503) else str(chance.randrange(1, 48))
        rows.append(
            (
                f"T{100_000 + (i if i % 600 != 599 else i - 1)}",
                name,
                latin,
                diameter,
                wrong.get(i, None if i % 5 == 2 else f"{planted}T00:00:00.000"),
                chance.choices(("Good", "Fair", "Poor", "Dead", None), (60, 25, 8, 2, 5))[0],
                address,
                zipcode,
                district,
                {"type": "Point", "coordinates": [float(longitude), float(latitude)]},
            )
        )
    return rows


def restaurant_inspections(today: date, count: int = 1200, seed: int = 0) -> list[Row]:
    """Inspections of the last year. 5 scores are words, 3 dates are no dates, 4 serial numbers come twice."""
    chance = random.Random(f"inspections {seed}")
    names = ("Café Olé", "Joe's Diner", 'The "Real" Taco', "Phở Hòa", "Bún & Bao, LLC", "Golden Wok", "Señor Fish", "Pizza, Pasta & More")
    rows = []
    for i in range(count):
        seen = today - timedelta(days=chance.randrange(365))
        score = min(100, int(chance.triangular(68, 101, 96)))
        address, zipcode, district, latitude, longitude = _address(chance)
        wrong_date = {20: "2026-06-31T00:00:00.000", 21: "last Tuesday", 22: "31/12/25"}.get(i)
        rows.append(
            (
                f"DA{chance.randrange(10):01d}{500_000 + i}" if i % 300 != 299 else rows[-1][0],
                chance.choice(names) + (f" #{chance.randrange(2, 30)}" if i % 3 else ""),
                wrong_date or f"{seen}T00:00:00.000",
                "N/A" if i in (600, 601, 602, 603, 604) else str(score),
                "A" if score >= 90 else "B" if score >= 80 else "C",
                chance.choice(("Routine", "Routine", "Routine", "Complaint", "Follow-up")),
                chance.choice((None, None, "Improper hot holding", 'Handwashing sink blocked; sign "wash" missing', "Vermin\nevidence of droppings")),
                address,
                zipcode,
                district,
                latitude,
                longitude,
            )
        )
    return rows


#: what a generator is to city.py: rows of one table as they stand on a day
Generator = Callable[[date], list[Row]]
