"""The sensors of the practice city: days that stay as they are, and a few that are ill."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from datetime import date, datetime, timedelta
from urllib.request import urlopen
from zoneinfo import ZoneInfo

import pytest

from opendata_ops.sandbox.sensors import FILES, READERS, ZONE, Days, SensorCity

NOW = datetime(2026, 11, 22, 8, tzinfo=ZoneInfo(ZONE))


def files(city: SensorCity) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in city.awam.iterdir()}


def test_the_days_before_the_first_start_are_there_and_a_new_one_comes_when_it_is_over(tmp_path):
    city = SensorCity(tmp_path, clock=lambda: NOW, days=3)
    first = files(city)
    assert set(first) == {f"{NOW - timedelta(days=back):{pattern}}" for back in (1, 2, 3) for pattern in FILES.values()}
    assert city.keep_up() == 0
    # the city was away for two days, and has not forgotten when it began
    later = SensorCity(tmp_path, clock=lambda: NOW + timedelta(days=2), days=3)
    second = files(later)
    assert later.days.began == NOW.date() and len(second) == 15 and all(second[name] == body for name, body in first.items())
    with closing(sqlite3.connect(later.kits)) as connection:
        counted = dict(connection.execute("select substr(CURDATETIME, 1, 10), count(*) from SYSDETHISTORYRM group by 1"))
    assert sorted(counted) == [f"2026-11-{day}" for day in range(19, 24)] and counted["2026-11-20"] == counted["2026-11-23"] == 14 * 96


def test_what_is_wrong_with_the_sensors_is_wrong_on_the_day_before_the_city_began():
    days = Days(date(2026, 11, 22))
    newest, usual = (Counter(read[2] for read in days.reads(date(2026, 11, day))) for day in (21, 20))
    assert 2.3 < newest["lamar_6th"] / usual["lamar_6th"] < 4 and 0 < newest["speedway_38th"] < usual["speedway_38th"] / 2
    assert usual["burnet_anderson"] and not newest["burnet_anderson"] and not usual["51st_manor"]
    assert all(0.6 < newest[one.name] / usual[one.name] < 1.6 for one in READERS if one.name in ("lamar_mlk", "lamar_38th", "slaughter_brodie"))
    assert Counter(read[2] for read in days.reads(date(2026, 11, 12)))["51st_manor"]
    volumes = Counter()
    for detector, _, volume, *_ in days.counts(date(2026, 11, 21)):
        volumes[detector // 10] += volume
    assert volumes[3] == 0 and 4 not in volumes and min(volumes[one] for one in (1, 2, 5)) > 1000


@pytest.mark.parametrize("code", ["bt", "wt", "gs"])
def test_the_office_gives_the_inventory(tmp_path, code):
    with SensorCity(tmp_path, clock=lambda: NOW, days=1) as city, urlopen(f"{city.office.url}/units/{code}.json", timeout=5) as reply:
        devices = json.load(reply)["devices"]
        assert devices == city.units(code)
    assert all({"device_type", "atd_device_id", "device_ip", "lat", "lon"} <= set(one) for one in devices)
