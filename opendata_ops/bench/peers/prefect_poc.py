"""The steps of 311-data's Prefect flow: JSON pages of 100,000, a CSV by DictWriter, COPY into `temp_loading`, insert, update.

Its VACUUM FULL of the whole database is left out.
"""

import csv
from contextlib import closing
from pathlib import Path

import psycopg2
import requests
from clocked import argument, clock
from psycopg2.sql import SQL, Identifier

BATCH = 100_000
TYPES = {"createddate": "timestamp", "updateddate": "timestamp", "servicedate": "timestamp", "closeddate": "timestamp"}
TYPES |= {"latitude": "double precision", "longitude": "double precision"}
NAMES = [
    "srnumber", "createddate", "updateddate", "actiontaken", "owner", "requesttype", "status", "requestsource", "createdbyuserorganization",
    "mobileos", "anonymous", "assignto", "servicedate", "closeddate", "addressverified", "approximateaddress", "address", "housenumber",
    "direction", "streetname", "suffix", "zipcode", "latitude", "longitude", "location", "tbmpage", "tbmcolumn", "tbmrow", "apc", "cd",
    "cdmember", "nc", "ncname", "policeprecinct",
]  # fmt: skip

asked = argument()
path = Path(asked["folder"]) / "full.csv"


def download():
    with path.open("w", newline="", encoding="utf-8") as file, requests.Session() as session:
        writer = csv.DictWriter(file, fieldnames=NAMES)
        writer.writeheader()
        offset = 0
        while offset < asked["rows"]:
            wish = {"$select": ",".join(NAMES), "$limit": min(BATCH, asked["rows"] - offset), "$offset": offset}
            found = session.get(f"{asked['url']}.json", params=wish, timeout=600).json()
            writer.writerows(found)
            offset += len(found)
            if len(found) < BATCH:
                break


def load(cursor):
    fields = SQL(", ").join(SQL("{} {}").format(Identifier(name), SQL(TYPES.get(name, "varchar"))) for name in NAMES)
    table = Identifier(asked["schema"], asked["table"])
    names = {"t": table, "columns": SQL(", ").join(map(Identifier, NAMES))}
    names["set"] = SQL(", ").join(SQL("{0} = s.{0}").format(Identifier(name)) for name in NAMES)
    cursor.execute(SQL("create table if not exists {} ({}, primary key (srnumber))").format(table, fields))
    cursor.execute(SQL("create temp table temp_loading ({})").format(fields))
    with path.open(encoding="utf-8") as file:
        cursor.copy_expert("copy temp_loading from stdin csv header", file)
    cursor.execute(
        SQL(
            "with rows as (insert into {t} ({columns}) select {columns} from temp_loading on conflict (srnumber) do nothing returning 1)"
            " select count(*) from rows"
        ).format(**names)
    )
    cursor.execute(SQL("update {t} t set {set} from temp_loading s where t.srnumber = s.srnumber and t.updateddate != s.updateddate").format(**names))


with clock():
    download()
    with closing(psycopg2.connect(asked["dsn"])) as connection, connection, connection.cursor() as cursor:
        load(cursor)
