"""dlt as its users load a Socrata portal: the rest_api source over JSON pages, with hints, csv files and two workers to help it."""

import os

import dlt
from clocked import argument, clock
from dlt.sources.rest_api import rest_api_source

PAGE = 50_000

TIMES = ("createddate", "updateddate", "servicedate", "closeddate")
HINTS = {name: {"data_type": "timestamp", "timezone": False} for name in TIMES}
HINTS |= {"latitude": {"data_type": "double"}, "longitude": {"data_type": "double"}, "location": {"data_type": "json"}}

asked = argument()
os.environ |= {"NORMALIZE__WORKERS": "2", "LOAD__WORKERS": "2"}
base, _, name = asked["url"].rpartition("/")
source = rest_api_source(
    {
        "client": {"base_url": base},
        "resources": [
            {
                "name": asked["table"],
                "primary_key": "srnumber",
                "write_disposition": {"disposition": "merge", "strategy": "upsert"},
                "columns": HINTS,
                "endpoint": {
                    "path": f"{name}.json",
                    "params": {"$order": "srnumber"},
                    "paginator": {
                        "type": "offset", "limit": PAGE, "limit_param": "$limit", "offset_param": "$offset", "total_path": None,
                        "maximum_offset": asked["rows"],
                    },
                },
            }
        ],
    }
)  # fmt: skip
source.max_table_nesting = 0

if __name__ == "__main__":
    with clock():
        pipeline = dlt.pipeline(
            f"bench_{asked['table']}",
            destination=dlt.destinations.postgres(asked["dsn"].replace("postgres://", "postgresql://")),
            dataset_name=asked["schema"],
            pipelines_dir=asked["folder"],
        )
        pipeline.run(source, loader_file_format="csv").raise_on_failed_jobs()
