"""No hole: while all rows of a public table are exchanged, its readers see the old rows or the new ones, whoever is killed and when.

The steps are killed in a process of their own by kill -9, as the machine's failure would; CKAN itself is killed too, before, at and
after the commit of the exchange. Then the next run heals, and nothing is left over. One table goes through all of it, each time with
rows of the next edition.
"""

import os
import signal
from contextlib import suppress

import pytest

from pipelines.connectors import ckan_exchange, ckan_rows
from pipelines.errors import PipelineError, TransientError
from tests.ckan.portals import Reader, connector, leftovers, publish, write

pytestmark = pytest.mark.needs("redis")


@pytest.fixture(scope="module")
def ckan(ckan_server):
    with ckan_server.alone():
        yield ckan_server


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(ckan_rows, "BATCH", 20)


class Table:
    """A public table of one account: `old` is what its readers see now, `new` what they are to see next."""

    def __init__(self, ckan, who, folder):
        self.ckan, self.key, self.folder, self.resource = ckan, getattr(ckan, who), folder, f"no-hole-of-the-{who.replace('_', '-')}/Rows"
        self.edition, self.old, self.new = 0, (0, {}), (0, {})
        self.next()
        publish(self.publisher, self.resource, self.path, self.rows)
        self.id = self.publisher._resource(self.resource)["id"]
        self.next()

    @property
    def publisher(self):
        return connector(self.ckan, self.key)

    def next(self) -> None:
        """What was published is the old edition now."""
        self.old = self.new
        self.edition += 1
        self.name, self.rows = f"edition {self.edition}", 60 - self.edition % 7
        self.new = (self.rows, {self.name: self.rows})
        self.path = write(self.folder / f"{self.edition}.csv", self.name, self.rows)

    def publish(self, **how):
        return publish(self.publisher, self.resource, self.path, self.rows, **how)

    def is_killed(self, wish: str, **how) -> bool:
        """Publish the new edition in a process that kills itself as `wish` says. Returns whether it came to that."""
        child = os.fork()
        if not child:
            os.environ["ODO_FAULT"] = wish
            with suppress(BaseException):
                self.publish(**how)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@pytest.fixture(scope="module")
def tables(ckan, tmp_path_factory):
    made = {}

    def table(who: str) -> Table:
        if who not in made:
            made[who] = Table(ckan, who, tmp_path_factory.mktemp(who))
        elif made[who].new[0]:
            made[who].next()
        return made[who]

    table.made = made
    return table


@pytest.fixture
def left(ckan, tables):
    """What is left over beside the tables of this module."""
    return lambda: leftovers(ckan, *(table.id for table in tables.made.values()))


def test_readers_see_the_old_rows_or_the_new_ones_and_nothing_else(ckan, tables, left):
    table = tables("sysadmin_key")
    with Reader(ckan, table.id).looking(2) as reader:
        assert table.publish().reply["way"] == "exchanged"
    assert reader.seen == [table.old, table.new] and not reader.failed and reader.looks > 5
    assert not left()


def test_readers_that_never_let_go_are_waited_for_and_then_left_with_the_old_rows(ckan, tables, left, monkeypatch):
    monkeypatch.setattr(ckan_exchange, "TRIES", 2)
    table = tables("sysadmin_key")
    with ckan.sql() as cursor:
        # as a search does that goes on and on
        cursor.execute("begin")
        cursor.execute(f'select 1 from "{table.id}" limit 1')
        with Reader(ckan, table.id).looking() as reader, pytest.raises(TransientError, match="left no moment"):
            table.publish()
        cursor.execute("rollback")
    assert reader.seen == [table.old] and not reader.failed and not left()
    table.new = table.old


STEPS = ("ckan.staging:1", "ckan.batch:1", "ckan.batch:3", "ckan.counted:1", "ckan.function:1", "ckan.exchanged:1", "ckan.cleaned:1", "ckan.dated:1")


@pytest.mark.parametrize("step", STEPS)
def test_a_sysadmins_run_that_is_killed_leaves_old_rows_or_new_ones_and_the_next_heals(ckan, tables, left, step):
    table = tables("sysadmin_key")
    with Reader(ckan, table.id).looking() as reader:
        assert table.is_killed(f"{step}:kill")
        reader.look()
        assert reader.last == (table.new if step in ("ckan.exchanged:1", "ckan.cleaned:1", "ckan.dated:1") else table.old)
        table.publish()
    assert reader.seen == [table.old, table.new] and not reader.failed
    assert not left()


@pytest.mark.parametrize("key", [(), ("id",)], ids=["no key", "key"])
@pytest.mark.parametrize("step", ["ckan.unkeyed:1", "ckan.batch:1", "ckan.batch:3", "ckan.counted:1", "ckan.removed:1", "ckan.dated:1"])
def test_an_editors_run_that_is_killed_never_shows_fewer_rows_and_the_next_heals(ckan, tables, step, key):
    table = tables("editor_key")
    [before], [after] = table.old[1], table.new[1]
    with Reader(ckan, table.id).looking() as reader:
        assert table.is_killed(f"{step}:kill", key=key)
        table.publish(key=key)
    # all of the old ones are there until all of the new ones are
    assert all(rows.get(before, 0) >= table.old[0] or rows.get(after, 0) >= table.rows for _, rows in reader.seen), reader.seen
    assert reader.last == table.new and not reader.failed
    with ckan.sql() as cursor:
        cursor.execute("select count(*) from pg_indexes where tablename = %s and indexdef like '%%(id)'", [table.id])
        assert cursor.fetchone()[0] == bool(key)


@pytest.mark.parametrize("who", ["sysadmin_key", "editor_key"])
def test_what_was_added_is_taken_back_when_a_batch_is_refused(ckan, tables, left, who):
    table = tables(who)
    table.path.write_text(table.path.read_text().replace(f"50,{table.name},2024", f"50,{table.name},never 2024"))
    reader = Reader(ckan, table.id)
    with reader.looking(), pytest.raises(PipelineError, match="invalid input syntax for type date"):
        table.publish()
    assert reader.last == table.old and not left()
    table.new = table.old


@pytest.mark.parametrize("when", ["before", "commit", "after"])
def test_a_ckan_that_dies_at_the_exchange_serves_old_rows_or_new_ones(ckan, tables, left, when):
    table = tables("sysadmin_key")
    reader = Reader(ckan, table.id)
    reader.look()
    # the second one of the run: the first makes the staged table. Nobody looks meanwhile: it dies at the commit of one request, not of two
    ckan.kill_at("datastore_create", nth=2, when=when)
    with pytest.raises(PipelineError):
        table.publish()
    ckan.restart()
    reader.look()
    assert reader.last == (table.new if when == "after" else table.old)
    with reader.looking():
        table.publish()
    assert reader.seen == [table.old, table.new] and not reader.failed
    assert not left()


def test_an_exchange_whose_answer_was_lost_may_be_asked_for_again(ckan, tables, monkeypatch):
    table = tables("sysadmin_key")
    publisher = table.publisher
    ask = publisher._ask

    def twice(name, params, **how):
        if name == "datastore_create" and "triggers" in params:
            ask(name, params, **how)
        return ask(name, params, **how)

    monkeypatch.setattr(publisher, "_ask", twice)
    publish(publisher, table.resource, table.path, table.rows)
    reader = Reader(ckan, table.id)
    reader.look()
    assert reader.last == table.new
