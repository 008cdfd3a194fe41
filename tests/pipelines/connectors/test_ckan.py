"""CKAN as a source and a portal, against the practice city's: pages, words, what is sent, and what passes and what does not.

What only a real CKAN can prove (the exchange under readers, columns, tokens) is in tests/ckan.
"""

import csv
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from math import inf, nan

import pytest

from opendata_ops.sandbox.ckan import Ckan as Portal
from opendata_ops.sandbox.faults import Fault
from opendata_ops.sandbox.wire import Reply
from pipelines.connectors import ckan as connector_module
from pipelines.connectors import ckan_about, ckan_rows
from pipelines.connectors.base import Account, Column, FetchRequest
from pipelines.connectors.ckan import Ckan
from pipelines.connectors.http import Door
from pipelines.errors import DataError, SetupError, TransientError
from tests.ckan.portals import COLUMNS, about, connector, publish, write
from tests.pipelines.connectors.servers import Told


@pytest.fixture
def portal():
    with Portal() as portal:
        yield portal
        assert not portal.mistakes


@pytest.fixture
def ckan(portal):
    return connector(portal)


def asked(ckan: Ckan, action: str) -> list[dict]:
    """What the connector asks of an action from here on, each time it does."""
    found, ask = [], ckan._ask

    def listen(name, params, **how):
        if name == action:
            found.append(params)
        return ask(name, params, **how)

    ckan._ask = listen
    return found


def rows(number: int) -> list[dict]:
    return [{"id": n, "edition": 'Çelik\n"Bros"' if n % 2 else None, "when": "2024-02-29", "at": {"p": [0, 1.5]}} for n in range(number)]


FIELDS = [{"id": "id", "type": "int"}, {"id": "edition", "type": "text", "info": {"label": "Edition", "notes": "Which one."}},
          {"id": "when", "type": "date"}, {"id": "at", "type": "json"}]  # fmt: skip


@pytest.fixture
def source(ckan):
    """A resource with seven rows."""
    ckan.action("package_create", name="shelters", owner_org="city")
    made = ckan.action("datastore_create", resource={"package_id": "shelters", "name": "Rows"}, fields=FIELDS, records=rows(7))
    return made["resource_id"]


def request(*names: str, **more) -> FetchRequest:
    kinds = {"id": "number", "when": "local_time", "at": "json"}
    return FetchRequest(columns=tuple(Column(name, kinds.get(name, "text")) for name in names), **more)


# a source


def test_a_resource_is_described_by_its_id_or_by_its_names(ckan, source):
    for resource in (source, "shelters/Rows", "shelters"):
        told = connector_of(ckan).describe(resource)
        assert [(column.name, column.type, column.label, column.description) for column in told.columns] == [
            ("id", "number", "", ""), ("edition", "text", "Edition", "Which one."), ("when", "local_time", "", ""), ("at", "json", "", ""),
        ]  # fmt: skip
        assert told.version is None and told.metadata["rows"] == 7


def connector_of(ckan: Ckan) -> Ckan:
    """Another one of the same account, which has found nothing yet."""
    return Ckan(ckan.account, ckan.door)


def test_rows_come_in_pages_of_csv_each_value_as_it_is(ckan, source, tmp_path):
    wanted = request("when", "id", "edition", "at", page_size=3)
    assert ckan.count(source, wanted) == 7
    told: list[tuple] = []
    files = list(ckan.fetch(source, wanted, rows=7, workdir=tmp_path, progress=lambda *said: told.append(said)))
    assert [file.rows for file in files] == [3, 3, 1] and told == [(3, 7), (6, 7), (7, 7)]
    with files[0].path.open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["when", "id", "edition", "at"],
            ["2024-02-29", "0", "", '{"p":[0,1.5]}'],
            ["2024-02-29", "1", 'Çelik\n"Bros"', '{"p":[0,1.5]}'],
            ["2024-02-29", "2", "", '{"p":[0,1.5]}'],
        ]
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name for file in files]


def test_numbers_keep_every_digit_that_was_sent(tmp_path):
    body = json.dumps({"success": True, "result": {"records": [{"id": "X"}]}}).replace('"X"', "12345678901234567.250")
    with Told(Reply(200, body.encode())) as server:
        ckan = Ckan(Account("p", server.url), Door(["127.0.0.1"], owner="p"))
        ckan._held["x"] = {"id": "x"}
        [file] = ckan.fetch("x", request("id"), rows=1, workdir=tmp_path, progress=lambda *said: None)
        assert file.path.read_text() == "id\n12345678901234567.250\n"


def test_a_table_that_shrinks_while_it_is_read_is_never_taken_for_whole(ckan, source, tmp_path):
    with pytest.raises(TransientError, match="gave 7 of 9 rows") as caught:
        list(ckan.fetch(source, request("id"), rows=9, workdir=tmp_path, progress=lambda *said: None))
    assert caught.value.code == "short-page"


def test_a_window_is_asked_for_in_the_columns_own_clock(ckan, source):
    day = {"starts_at": datetime(2024, 2, 29, 5, tzinfo=UTC), "ends_at": datetime(2024, 3, 1, 5, tzinfo=UTC), "time_zone": "America/Toronto"}
    searches = asked(ckan, "datastore_search")
    assert ckan.count(source, request("when", window_column="when", **day)) == 7
    assert searches[-1]["filters"] == {"when": {"gte": "2024-02-29T00:00:00", "lt": "2024-03-01T00:00:00"}}


def test_a_watermark_is_refused_in_words(ckan, source):
    with pytest.raises(SetupError, match="newer than others") as caught:
        ckan.count(source, request("when", since_column="when", since="2024-01-01"))
    assert caught.value.code == "bad-watermark-column"


def test_a_resource_without_rows_in_the_datastore_is_not_a_table(ckan):
    ckan.action("package_create", name="shelters", owner_org="city", resources=[{"name": "File", "url": "https://x/y.pdf"}])
    with pytest.raises(SetupError, match="is not a table"):
        ckan.describe("shelters/File")
    with pytest.raises(SetupError, match="has no shelters/Rows") as caught:
        ckan.describe("shelters/Rows")
    assert caught.value.code == "not-introduced"


def test_two_resources_of_one_name_are_not_guessed_at(ckan):
    ckan.action("package_create", name="shelters", owner_org="city", resources=[{"name": "Rows", "url": "a"}, {"name": "Rows", "url": "b"}])
    with pytest.raises(SetupError, match="has 2 resources named 'Rows'"):
        ckan.describe("shelters/Rows")
    with pytest.raises(SetupError, match="neither the id of a CKAN resource nor"):
        ckan.describe("Shelters of the City/Rows")


# what it says


def test_only_what_differs_is_sent_and_what_is_empty_here_stays_there(ckan, portal):
    assert ckan.introduce("shelters/Rows", about(limitations="None.")) == ("the dataset shelters was made", "the table Rows was made")
    ids = [(package["id"], package["resources"][0]["id"]) for package in [portal.package("shelters")]]
    patches, of_tables = asked(ckan, "package_patch"), asked(ckan, "resource_patch")
    assert ckan.introduce("shelters/Rows", about(limitations="")) == ()
    assert not patches and not of_tables
    assert ckan.introduce("shelters/Rows", about(description="Others.", tags=["housing", "winter"])) == ("notes", "tags")
    assert patches == [{"id": ids[0][0], "notes": "Others.", "tags": [{"name": "housing"}, {"name": "winter"}]}]
    package = portal.package("shelters")
    assert (package["limitations"], package["notes"]) == ("None.", "Others.")
    assert [(package["id"], package["resources"][0]["id"])] == ids


def test_what_a_plain_portal_does_not_know_goes_beside_and_is_found_there():
    with Portal(fields=()) as plain:
        ckan = connector(plain)
        ckan.introduce("shelters/Rows", about(topics=["Health", "Water"], is_retired=True))
        beside = {extra["key"]: extra["value"] for extra in plain.package("shelters")["extras"]}
        assert beside == {"refresh_rate": "Daily", "topics": "Health, Water", "is_retired": "true"}
        assert ckan.introduce("shelters/Rows", about(topics=["Health", "Water"], is_retired=True)) == ()
        ckan.action("package_patch", id="shelters", extras=[*plain.package("shelters")["extras"], {"key": "by hand", "value": "stays"}])
        assert ckan.introduce("shelters/Rows", about(topics=["Health"], is_retired=True)) == ("topics",)
        beside = {extra["key"]: extra["value"] for extra in plain.package("shelters")["extras"]}
        assert (beside["topics"], beside["by hand"]) == ("Health", "stays")


def test_a_new_word_of_the_dictionary_is_sent_without_a_row(ckan, tmp_path):
    publish(ckan, "shelters/Rows", write(tmp_path / "rows.csv", "old", 3), 3)
    columns = (Column("id", "number", "Id", "Another word."), *COLUMNS[1:], Column("not there yet"))
    wishes = asked(ckan, "datastore_create")
    assert ckan.introduce("shelters/Rows", about(columns)) == ("dictionary: id",)
    [wish] = wishes
    assert "records" not in wish and wish["fields"][0] == {"id": "id", "info": {"label": "Id", "notes": "Another word."}}
    assert ckan.introduce("shelters/Rows", about(columns)) == ()


def test_a_dataset_that_another_pipeline_made_at_the_same_moment_is_taken(ckan, portal, monkeypatch):
    connector(portal).introduce("shelters/One", about())
    shown, looks = ckan._package, []

    def blind_at_first(name):
        looks.append(name)
        return shown(name) if len(looks) > 1 else None

    monkeypatch.setattr(ckan, "_package", blind_at_first)
    ckan.introduce("shelters/Two", about(description="Others."))
    package = portal.package("shelters")
    assert (package["notes"], [each["name"] for each in package["resources"]]) == ("Others.", ["One", "Two"])


def test_the_licence_is_an_address_or_the_portals_id_of_one():
    told = {"title": "T", "licence": "cc-by"}
    assert ckan_about.fields_of(about(**told), "", "")["license_id"] == "cc-by"
    assert ckan_about.fields_of(about(), "city", "https://x/licence")["license_url"] == "https://x/licence"
    assert ckan_about.fields_of(about(), "city", "https://x/licence")["owner_org"] == "city"


# rows


def test_columns_and_key_are_looked_at_before_a_row_is_sent(ckan, portal):
    ckan.introduce("shelters/Rows", about())
    with pytest.raises(SetupError, match="'_a' begins with an underscore; 'a\"b' has a double quote"):
        ckan.preflight("shelters/Rows", columns=[Column("_a"), Column('a"b')], key=("_a",))
    with pytest.raises(SetupError, match="have no key") as caught:
        ckan.preflight("shelters/Rows", columns=COLUMNS, key=())
    assert caught.value.code == "row-identifier-missing"
    with pytest.raises(SetupError, match="has no API token"):
        Ckan(Account("p", portal.url), ckan.door).preflight("shelters/Rows", columns=COLUMNS, key=("id",))


@pytest.mark.parametrize("who", ["sysadmin_key", "editor_key"])
def test_all_rows_are_exchanged_and_nothing_is_left_over(portal, tmp_path, who):
    ckan = connector(portal, getattr(portal, who))
    publish(ckan, "shelters/Rows", write(tmp_path / "old.csv", "old", 5), 5)
    publish(ckan, "shelters/Rows", write(tmp_path / "new.csv", "new", 3), 3)
    assert ckan.published_count("shelters/Rows") == 3
    assert {row["edition"] for row in portal.table("shelters", "Rows").rows.values()} == {"new"}
    assert list(portal.packages) == [portal.package("shelters")["id"]] and len(portal.tables) == 1 and not portal.functions
    assert portal.package("shelters")["resources"][0]["last_modified"]


def test_rows_are_sent_in_batches_that_a_portal_takes(ckan, tmp_path, monkeypatch):
    sent = asked(ckan, "datastore_upsert")
    monkeypatch.setattr(ckan_rows, "BATCH", 2)
    publish(ckan, "shelters/Rows", write(tmp_path / "rows.csv", "old", 5), 5, key=("id",))
    assert [len(wish["records"]) for wish in sent] == [2, 2, 1]
    monkeypatch.setattr(ckan_rows, "BATCH_TEXT", 3)
    sent.clear()
    ckan.upsert("shelters/Rows", [{"id": str(number), "edition": "long enough", "when": None} for number in (7, 8)])
    assert [len(wish["records"]) for wish in sent] == [1, 1]
    assert ckan.published_count("shelters/Rows") == 7


def test_rows_are_upserted_asked_for_and_deleted_by_their_key(ckan):
    upserts = asked(ckan, "datastore_upsert")
    ckan.introduce("shelters/Rows", about())
    ckan.preflight("shelters/Rows", columns=COLUMNS, key=("id",))
    ckan.open_publication("shelters/Rows", COLUMNS)
    sent = [{"id": str(n), "edition": "old", "when": "2024-02-29T00:00:00.000"} for n in range(4)]
    assert ckan.upsert("shelters/Rows", sent).updated == 4 and ckan.upsert("shelters/Rows", sent[:2]).updated == 2
    ckan.close_publication("shelters/Rows")
    assert ckan.published_count("shelters/Rows") == 4
    assert ckan.present("shelters/Rows", [{"id": "1"}, {"id": "3"}, {"id": "9"}]) == {"1", "3"}
    assert ckan.delete("shelters/Rows", [{"id": "1"}, {"id": "9"}]).errors == 0
    assert ckan.published_count("shelters/Rows") == 3
    assert upserts[0]["records"][0] == {"id": 0, "edition": "old", "when": "2024-02-29"}


def test_a_filter_that_names_nothing_never_reaches_the_portal(ckan):
    with pytest.raises(ValueError, match="would empty the table"):
        ckan._remove("x", {})


def test_rows_that_share_a_part_of_their_key_are_named_together():
    records = [{"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 2}]
    assert list(connector_module._by_key(records)) == [{"a": 1, "b": [1, 2]}, {"a": 2, "b": [1]}]


def test_a_column_has_the_portals_type_that_its_dictionary_says_or_one_of_its_kind():
    told = [Column("a", "number", portal_type=kind) for kind in ("int", "float", "", "int4")] + [
        Column("a", "local_time", portal_type="date"),
        Column("a", "point"),
    ]
    assert [ckan_rows.type_of(column) for column in told] == ["int8", "float8", "numeric", "int4", "date", "text"]


@pytest.mark.parametrize(
    ("value", "kind", "sent"),
    [
        ("", "text", ""), ("", "int8", None), (None, "text", None), ("12", "int8", 12), ("12.0", "int8", 12), ("12.5", "int8", "12.5"),
        ("0", "int8", 0), ("0.1", "float8", 0.1), ("1e3", "float8", 1000.0), ("2.50", "numeric", 2.5),
        ("12345678901234567.25", "numeric", "12345678901234567.25"),
        (Decimal("7"), "int8", 7), ("true", "bool", True), (False, "bool", False), ("2024-02-29T00:00:00.000", "date", "2024-02-29"),
        ("2024-02-29T23:59:59.000", "timestamp", "2024-02-29T23:59:59"), ("2024-02-29T23:59:59.125", "timestamp", "2024-02-29T23:59:59.125"),
        ("2024-02-29T05:00:00.000Z", "timestamptz", "2024-02-29T05:00:00.000Z"), (date(2024, 2, 29), "date", "2024-02-29"),
        ('{"a": [1, 2.5]}', "json", {"a": [1, 2.5]}), ("", "json", None), ({"a": 1}, "json", {"a": 1}),
        ("012", "text", "012"), ("abc", "int8", "abc"),
    ],
)  # fmt: skip
def test_a_cell_is_sent_as_its_column_has_it(value, kind, sent):
    got = ckan_rows.cell(value, kind, "x")
    assert (got, type(got)) == (sent, type(sent))


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (nan, "float8"),
        (inf, "numeric"),
        ("NaN", "float8"),
        ("Infinity", "numeric"),
        (Decimal("NaN"), "numeric"),
        ('{"a": NaN}', "json"),
        ("{", "json"),
    ],
)
def test_what_json_can_not_say_is_never_sent(value, kind):
    with pytest.raises(DataError, match="column x holds"):
        ckan_rows.cell(value, kind, "x")


def test_keys_are_the_same_by_their_value_and_texts_by_their_letters():
    same = ckan_rows.same_key
    assert same("12.50", "numeric") == same(12.5, "numeric") and same("2024-02-29", "date") == same("2024-02-29T00:00:00.000", "timestamp")
    assert same("012", "text") != same("12", "text")


# what goes wrong


def test_what_passes_is_asked_again_and_what_would_double_a_row_is_not(ckan, portal, tmp_path):
    publish(ckan, "shelters/Rows", write(tmp_path / "rows.csv", "old", 3), 3)
    portal.fail(Fault(503), path="datastore_search", times=1)
    assert ckan.published_count("shelters/Rows") == 3
    portal.fail(Fault("lost_reply"), path="datastore_upsert", times=1)
    portal.requests.clear()
    with pytest.raises(TransientError):
        ckan._write(ckan._resource("shelters/Rows")["id"], [{"id": 1}], "insert")
    assert [request.path.rpartition("/")[2] for request in portal.requests] == ["datastore_upsert"]


def test_a_refusal_with_a_good_status_is_a_refusal_all_the_same():
    said = {"success": False, "error": {"__type": "Validation Error", "name": ["That URL is already in use."], "tags": [{"name": ["too short"]}]}}
    with Told(Reply.of(said)) as server:
        ckan = Ckan(Account("p", server.url), Door(["127.0.0.1"], owner="p"))
        with pytest.raises(DataError, match="refused package_create: name: That URL is already in use.; tags: name: too short"):
            ckan.action("package_create", name="x")


def test_what_is_no_ckan_is_told_from_one_that_refuses():
    with Told(Reply.of({"ok": True})) as server, pytest.raises(SetupError, match="not as a CKAN portal does"):
        Ckan(Account("p", server.url), Door(["127.0.0.1"], owner="p")).test()


def test_the_connection_is_tried_with_the_token(ckan, portal):
    assert "knows the token as sam's" in ckan.test()
    with pytest.raises(SetupError, match="does not know the token of provider open-data"):
        connector(portal, "a-wrong-token").test()
