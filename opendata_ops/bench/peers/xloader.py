"""ckanext-xloader's steps outside CKAN: download with md5, guess the encoding, rewrite through tabulator, COPY into a table of text.

Its full-text index, which every row of CKAN's gets, is left out: it would do more than the others.
"""

import csv
import hashlib
import tempfile
from contextlib import closing
from pathlib import Path

import psycopg2
import requests
from chardet.universaldetector import UniversalDetector
from clocked import argument, clock
from psycopg2.sql import SQL, Identifier
from tabulator import Stream, config

asked = argument()
config.CSV_SAMPLE_LINES = 1000
csv.field_size_limit(1 << 30)


def fetched(folder):
    """The file, in pieces of 16 kB and with its md5, as xloader gets it."""
    path, digest = Path(folder) / "download.csv", hashlib.md5()  # noqa: S324  as they do
    with requests.get(f"{asked['url']}.csv", params={"$limit": asked["rows"]}, stream=True, timeout=600) as answer, path.open("wb") as file:
        for piece in answer.iter_content(16 * 1024):
            file.write(piece)
            digest.update(piece)
    return path


def encoding(path):
    detector = UniversalDetector()
    with path.open("rb") as file:
        for line in file:
            detector.feed(line)
            if detector.done:
                break
    detector.close()
    return detector.result["encoding"] or "utf-8"


with tempfile.TemporaryDirectory(dir=asked["folder"]) as folder, clock():
    path = fetched(folder)
    encoding(path)
    clean = Path(folder) / "clean.csv"
    # chardet takes the beginning for ASCII; xloader then falls back to UTF-8
    with Stream(str(path), format="csv", headers=1, encoding="utf-8") as stream:
        names = stream.headers
        stream.save(str(clean), format="csv", encoding="utf-8", delimiter=",")
    with closing(psycopg2.connect(asked["dsn"])) as connection, connection, connection.cursor() as cursor:
        table = Identifier(asked["schema"], asked["table"])
        fields = SQL(", ").join(SQL("{} text").format(Identifier(name)) for name in names)
        cursor.execute(SQL("create table {} (_id serial primary key, _full_text tsvector, {})").format(table, fields))
        columns = SQL(", ").join(map(Identifier, names))
        with clean.open("rb") as file:
            cursor.copy_expert(
                SQL("copy {} ({}) from stdin with (delimiter ',', format csv, header 1, encoding 'UTF8')").format(table, columns), file
            )
