"""dlt at its best known: pages read by pyarrow, handed over as Arrow tables, parquet files, ADBC's binary COPY, strategy `upsert`."""

import io

import dlt
import pyarrow as pa
import pyarrow.csv as pc
import requests
from clocked import argument, clock

PAGE = 50_000
TIMES = ("createddate", "updateddate", "servicedate", "closeddate")
NUMBERS = ("latitude", "longitude")

asked = argument()


def types(names):
    return {name: pa.timestamp("ms") if name in TIMES else pa.float64() if name in NUMBERS else pa.string() for name in names}


@dlt.resource(name=asked["table"], primary_key="srnumber", write_disposition={"disposition": "merge", "strategy": "upsert"})
def pages():
    with requests.Session() as session:
        for offset in range(0, asked["rows"], PAGE):
            body = session.get(asked["url"] + ".csv", params={"$limit": PAGE, "$offset": offset, "$order": "srnumber"}, timeout=120).content
            names = [name.strip('"') for name in body[: body.index(b"\n")].decode().split(",")]
            yield pc.read_csv(
                io.BytesIO(body),
                parse_options=pc.ParseOptions(newlines_in_values=True),
                convert_options=pc.ConvertOptions(column_types=types(names), strings_can_be_null=True, quoted_strings_can_be_null=False),
            )


with clock():
    pipeline = dlt.pipeline(
        f"bench_{asked['table']}",
        destination=dlt.destinations.postgres(asked["dsn"].replace("postgres://", "postgresql://")),
        dataset_name=asked["schema"],
        pipelines_dir=asked["folder"],
    )
    pipeline.run(pages(), loader_file_format="parquet").raise_on_failed_jobs()
