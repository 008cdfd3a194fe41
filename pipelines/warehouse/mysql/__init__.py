"""City data in MariaDB or MySQL: bulk load into a private stage, judge every value, merge in one transaction.

A city table lies in the database of the warehouse's address and carries the same four columns of ours as in PostgreSQL, and
beside the tables lie `_odo_ledger` (the fence of each block's last merge: a worker whose lease ran out can't merge over its
successor), `_odo_counter` (where the numbers of `_odo_seq` come from) and `_odo_deleted` (keys that a portal must lose too).

What differs from PostgreSQL, because this server is another one:
- A number is kept exactly, in decimal(65,30): with up to 35 digits before the point and 30 after it; one with more is rejected.
  It goes out without the zeros at its end: 1.50 is 1.5.
- An instant is kept as UTC in datetime(6). JSON is kept, and compared, as the text that came.
- A text that is part of the key has room for 768 characters, less when several texts share the key; keys go by their bytes.
- Changing a table ends the open transaction, so a rebuilt table is put in its place by one RENAME after its transaction:
  readers see the old rows or the new ones, but a server that dies between the two steps serves the old rows, and the block,
  whose merge is not noted then, is loaded again.
"""

from pipelines.warehouse.mysql.cells import cells
from pipelines.warehouse.mysql.ddl import column_types, full_name, prepare, table_columns, tables
from pipelines.warehouse.mysql.fresh import sweep
from pipelines.warehouse.mysql.load import Load
from pipelines.warehouse.mysql.reading import count, count_by_two, deleted_after, highest, measures, rows_after, sample
from pipelines.warehouse.mysql.session import connect, end_sessions, has_merged, plain_words
from pipelines.warehouse.mysql.upkeep import analyze, examine, refresh, vacuum

__all__ = [
    "Load",
    "analyze",
    "cells",
    "column_types",
    "connect",
    "count",
    "count_by_two",
    "deleted_after",
    "end_sessions",
    "examine",
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
