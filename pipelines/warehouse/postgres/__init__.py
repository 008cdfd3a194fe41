"""City data in PostgreSQL: bulk copy into a private stage, judge every value, merge in one transaction.

A city table lies in the schema `city` and carries four columns of ours: `_odo_pipeline` and `_odo_block` (who wrote the row
last), `_odo_seq` (rises with every write: what the portal has not seen yet) and `_odo_loaded_at`. The table `city._odo_ledger`
keeps for each block the fence of the last merge: a worker whose lease ran out can't merge over its successor.
"""

from pipelines.warehouse.postgres.cells import cells
from pipelines.warehouse.postgres.ddl import column_types, full_name, prepare, table_columns
from pipelines.warehouse.postgres.fresh import sweep
from pipelines.warehouse.postgres.load import Load
from pipelines.warehouse.postgres.reading import count, count_by_two, deleted_after, highest, measures, rows_after, sample, tables
from pipelines.warehouse.postgres.session import SCHEMA, connect, end_sessions, has_merged, plain_words
from pipelines.warehouse.postgres.upkeep import analyze, refresh, vacuum

__all__ = [
    "Load",
    "SCHEMA",
    "analyze",
    "cells",
    "column_types",
    "connect",
    "count",
    "count_by_two",
    "deleted_after",
    "end_sessions",
    "full_name",
    "has_merged",
    "highest",
    "measures",
    "plain_words",
    "prepare",
    "refresh",
    "rows_after",
    "sample",
    "sweep",
    "table_columns",
    "tables",
    "vacuum",
]
