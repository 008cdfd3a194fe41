"""Table files through the stage: each raw file becomes typed CSV, the dictionary follows the configuration, and drift is told once."""

import json
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from django.utils import timezone

from catalog import lake
from catalog.models import CatalogEntry, Dataset, DatasetColumn, DatasetEvent, Layer
from opendata_ops.sandbox import toronto_rows
from pipelines import blocks, stages
from pipelines.errors import DataError, PipelineError, SetupError
from pipelines.models import LogLine, Pipeline, Provider, RejectedRow, Run, RunState, ScheduleBlock, State
from pipelines.stages.note import Note
from tests import world
from tests.pipelines.formats.reading import attributes, configured
from tests.pipelines.scene import city, drop_city
from tests.web import plain_web  # noqa: F401

pytestmark = pytest.mark.django_db
DAY = datetime(2026, 3, 1, tzinfo=UTC)
WINDOW = (DAY, DAY + timedelta(days=1))
_numbers = count(1)


class Table:
    """A block of a dataset of table files whose raw files already lie in the lake; its stages are done here, as a worker does them."""

    def __init__(self, tmp_path, format: str, *told: str | dict, part: str = "", key=(), zone="America/Toronto", then=(), **options):
        self.tmp_path, name = tmp_path, f"table{next(_numbers)}"
        provider = Provider.objects.create(slug=name, title="The city’s files", kind="web_file", base_url="https://files.example.org")
        self.pipeline = Pipeline.objects.create(
            slug=name, title="Roads", provider=provider, dataset=Dataset.objects.create(slug=name, title="Roads"), part=part, resource=f"/{name}",
            format=format, cadence="daily", key=list(key), table=name, time_zone=zone, stages=["extract", "standardize", *then],
            options={"attributes": attributes(*told), **options},
        )  # fmt: skip
        self.block = ScheduleBlock.objects.create(
            pipeline=self.pipeline, starts_at=WINDOW[0], ends_at=WINDOW[1], due_at=timezone.now(), stage="extract", stages=self.pipeline.stages
        )

    def fetch(self, *bodies: bytes | str, about: dict | None = None, joined: bytes | None = None) -> None:
        """What an extract of these files leaves behind."""
        run, entries = self._claim("extract"), []
        held = [(body, {"date_from_filename": f"{2024 + number}", **(about or {})}) for number, body in enumerate(bodies)]
        for number, (body, metadata) in enumerate([*held, *([(joined, {"role": "joined"})] if joined else [])]):
            path = self.tmp_path / "raw"
            path.write_bytes(body.encode() if isinstance(body, str) else body)
            entries.append(
                lake.shelve(
                    dataset=self.pipeline.dataset, source=self.pipeline.slug, layer=Layer.RAW, window=WINDOW, file=path,
                    name=f"raw-{number}.{self.pipeline.format}", sha256=lake.fingerprint(path), bytes=path.stat().st_size, rows=None,
                    metadata=metadata, run_id=run.pk,
                )
            )  # fmt: skip
        lake.withdraw_others(self.pipeline.slug, Layer.RAW, DAY, entries)
        blocks.advance(run, blocks.Outcome(blocks.Counts(rows_in=1, rows_out=1), details={"entries": [entry.pk for entry in entries]}))

    def _claim(self, stage: str) -> Run:
        ScheduleBlock.objects.filter(pk=self.block.pk).update(stage=stage, state=State.WAITING, due_at=timezone.now() - timedelta(seconds=1))
        return blocks.claim(self.block.pk, holder="test")

    def go(self, stage: str = "standardize") -> Run:
        """Do the stage; a failure is the block's, and raised."""
        run = self._claim(stage)
        workdir = self.tmp_path / f"work{run.pk}"
        workdir.mkdir()
        try:
            outcome = stages.carry_out(run, Note(run, workdir, lambda *told: None))
        except PipelineError as error:
            blocks.fail(run, error)
            raise
        blocks.advance(run, outcome)
        run.refresh_from_db()
        assert run.state == RunState.DONE and run.rows_in == run.rows_out + run.unchanged + run.rejected + run.duplicates
        return run

    def text(self) -> str:
        live = CatalogEntry.objects.live().filter(source=self.pipeline.slug, layer=Layer.STANDARD).order_by("id_base")
        return "".join(lake.lake().local_path(entry.pointer, self.tmp_path, sha256=entry.sha256).read_text() for entry in live)

    @property
    def events(self) -> list[DatasetEvent]:
        return list(DatasetEvent.objects.filter(dataset=self.pipeline.dataset).order_by("pk"))

    def configure(self, *told: str | dict) -> None:
        self.pipeline.options["attributes"] = attributes(*told)
        self.pipeline.save()


@pytest.fixture
def table(tmp_path):
    return lambda *told, **about: Table(tmp_path, *told, **about)


@pytest.mark.parametrize(
    ("format", "body", "options"),
    [
        ("csv", "Ward,Opened\n3.0,2024/03/15\n0,\n", {}),
        ("json", '{"value": [{"Ward": 3.0, "Opened": "2024-03-15"}, {"Ward": 0, "Opened": null}]}', {"jsonpath": "$.value"}),
        ("geojson", '{"features": [{"properties": {"Ward": 3, "Opened": "2024-03-15"}}, {"properties": {"Ward": 0, "Opened": null}}]}', {}),
        ("json", '{"features": [{"properties": {"Ward": 3, "Opened": "2024-03-15"}}, {"properties": {"Ward": 0}}]}', {"is_geojson": True}),
        ("xlsx", toronto_rows.workbook({"S": [("Ward", "Opened"), (3.0, "2024-03-15"), (0, None)]}), {"sheet": "S"}),
        ("json", '[{"ward": 3, "visits": [{"opened": "2024-03-15"}]}, {"ward": 0, "visits": null}]', {"custom_reader": "bodysafe"}),
    ],
)
def test_every_format_becomes_the_same_typed_table(table, format, body, options):
    one = table(format, "Ward>ward:int", "Opened>opened_on:date:%Y-%m-%d", **options)
    one.fetch(body)
    run = one.go()
    assert one.text() == "ward,opened_on\n3,2024-03-15\n0,\n" and (run.rows_in, run.rows_out, run.rejected) == (2, 2, 0)
    [entry] = CatalogEntry.objects.live().filter(source=one.pipeline.slug, layer=Layer.STANDARD)
    assert entry.metadata["columns"] == [["ward", "number"], ["opened_on", "local_time"]] and entry.metadata["vouched"] and entry.rows == 2


def test_a_refused_row_is_kept_with_its_column_value_and_line_and_judged_anew(table):
    one = table("csv", "id", "n:int", key=["id"])
    one.fetch("id,n\n1,5\n2,many\n3,0\n")
    assert one.go().rejected == 1 and one.text() == "id,n\n1,5\n3,0\n"
    [kept] = RejectedRow.objects.filter(block=one.block, replayed_at=None)
    assert (kept.reason, kept.column, kept.value, kept.line, kept.row_key) == ("n is not a number", "n", "many", 3, "2")
    assert kept.raw == {"id": "2", "n": "many"} and kept.file == CatalogEntry.objects.get(layer=Layer.RAW, source=one.pipeline.slug).pointer
    one.configure("id", "n:text")
    assert one.go().rejected == 0 and "2,many" in one.text() and not RejectedRow.objects.filter(block=one.block, replayed_at=None).exists()


def test_the_years_of_several_files_stand_in_their_rows(table):
    one = table("csv", "a:int", "date_from_filename>year", multi_insert_date=True)
    one.fetch("a\n1\n", "a\n2\n")
    run = one.go()
    assert one.text() == "a,year\n1,2024\na,year\n2,2025\n" and run.rows_out == 2


def test_the_dictionary_follows_the_configuration_and_a_person_s_words_stay(table):
    one = table("csv", "a:int", "T>t:timestamp:epoch", "j:json", part="Roads 2026")
    line = {"dataset": one.pipeline.dataset, "name": "a", "type": "text", "position": 0}
    DatasetColumn.objects.create(**line, part="Roads 2026", description="How many", is_published=False)
    DatasetColumn.objects.create(**line, part="Another", description="Not this one")
    one.fetch("a,T,j\n1,1710498000000,[]\n")
    one.go()
    lines = DatasetColumn.objects.filter(dataset=one.pipeline.dataset, part="Roads 2026").order_by("position")
    assert [(line.name, line.type, line.portal_type, line.description, line.is_published) for line in lines] == [
        ("a", "number", "int", "How many", False), ("t", "local_time", "timestamp", "", True), ("j", "json", "json", "", True)
    ]  # fmt: skip
    assert DatasetColumn.objects.get(part="Another", dataset=one.pipeline.dataset).type == "text"
    assert one.text().splitlines()[1] == "1,2024-03-15T06:20:00,[]"


def test_columns_that_nobody_configured_are_told_once_and_again_when_they_change(table):
    one = table("csv", "a")
    one.fetch("a,b\n1,2\n")
    assert one.go().details["drift"] == {"missing": [], "extra": ["b"]}
    one.go()
    [event] = one.events
    assert (event.kind, event.source, event.text) == ("columns", one.pipeline.slug, "In the data, and not in the configuration: b.")
    assert event.details["drift"] == {"missing": [], "extra": ["b"]}
    assert LogLine.objects.filter(text=event.text, level="warning").count() == 2
    one.fetch("a,b,c\n1,2,3\n")
    one.go()
    one.fetch("a\n1\n")
    assert one.go().details["drift"] == {"missing": [], "extra": []}
    assert [event.text for event in one.events][1:] == [
        "In the data, and not in the configuration: b, c.", "The data have the configured columns again, and no others."
    ]  # fmt: skip


def test_columns_that_are_missing_stop_the_block_with_their_names_and_the_nearest(table):
    one = table("csv", "INV_PROJECT", "Ward:int", "a")
    one.fetch("a,INV_PROJEKT\n1,2\n")
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            one.go()
    assert "INV_PROJECT is in the configuration, but not in the data (nearest there: INV_PROJEKT)" in caught.value.message
    assert "Ward is in the configuration, but not in the data" in caught.value.message and caught.value.code == "columns-missing"
    [event] = one.events
    assert event.details["drift"] == {"missing": ["INV_PROJECT", "Ward"], "extra": ["INV_PROJEKT"]}
    assert event.text.startswith("INV_PROJECT is in the configuration, but not in the data. Ward is")
    assert not CatalogEntry.objects.filter(source=one.pipeline.slug, layer=Layer.STANDARD).exists()


def test_what_drifted_is_never_taken_for_a_change_that_a_person_must_accept(table):
    from pipelines.stages.columns import unaccepted

    one = table("csv", "a")
    Pipeline.objects.filter(pk=one.pipeline.pk).update(accepted_columns=[["a", "text"]])
    one.fetch("a,b\n1,2\n")
    one.go()
    assert len(one.events) == 1 and unaccepted(Pipeline.objects.get(pk=one.pipeline.pk)) is None


def test_names_that_are_no_text_can_be_told_all_the_same(table):
    one = table("csv", "a")
    one.fetch(b"a,caf\xe9\x00\n1,2\n")
    assert one.go().details["drift"]["extra"] == ["caf\\xe9 "]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"attributes": [{"name": "a", "type": "integer"}]}, "bad-attributes"),
        ({"custom_reader": "snow_plows"}, "no-custom-reader"),
        ({"encoding": "klingon"}, "bad-encoding"),
        ({"epoch_zone": "Toronto"}, "bad-zone"),
    ],
)
def test_what_nobody_can_read_by_is_a_matter_of_settings(table, change, code):
    one = table("csv", "a")
    one.pipeline.options |= change
    one.pipeline.save()
    one.fetch("a\n1\n")
    with pytest.raises(SetupError) as caught:
        one.go()
    assert caught.value.code == code and caught.value.next_step and "Roads" in caught.value.message


def test_without_attributes_nobody_knows_what_the_columns_are_to_be(table):
    one = table("csv", "a")
    one.pipeline.options = {}
    one.pipeline.save()
    one.fetch("a\n1\n")
    with pytest.raises(SetupError, match="has no attributes"):
        one.go()


def test_rows_of_one_id_come_once_however_many_files_have_them(table):
    told, options = configured("dinesafe", "Dinesafe")
    one = table("json", *told, key=["unique_id"], custom_reader=options["custom_reader"])
    body = toronto_rows.dinesafe(30).body
    one.fetch(body, body)
    run = one.go()
    assert run.rows_out * 2 <= run.rows_in and run.duplicates == run.rows_in - run.rows_out and run.rejected == 0


def test_a_helper_is_read_with_the_file_that_it_belongs_to(table):
    one = table("csv", "PERMIT", "AREA:float", custom_reader="building_permits_green_roofs")
    one.fetch("PERMIT\n1\n2\n", joined=toronto_rows.workbook({"S": [("PERMIT", "AREA"), (1, 120.5)]}))
    assert one.go().rows_out == 2 and one.text() == "PERMIT,AREA\n1,120.5\n2,\n"


def test_pages_that_are_missing_fail_the_block(table):
    one = table("json", "a:int", custom_reader="tobids_awarded_contracts")
    one.fetch(json.dumps({"@odata.count": 3, "value": [{"a": 1}, {"a": 2}]}))
    with pytest.raises(DataError, match="3 records, and 2 came"):
        one.go()
    one.fetch(*(json.dumps({"@odata.count": 3, "value": rows}) for rows in ([{"a": 1}, {"a": 2}], [{"a": 3}])))
    assert one.go().rows_out == 3


@pytest.mark.django_db(transaction=True)
def test_what_is_standardized_is_loaded_with_every_cell_as_it_was(table):
    one = table(
        "csv", "id:int", "name", "n:float", "day:date:%m/%d/%Y", "at:timestamp:epoch", "j:json", "geometry", key=["id"], then=["load"]
    )  # fmt: skip
    body = (
        'id,name,n,day,at,j,lat,lon\n1,"two\r\nlines, ""x""","1,000.50",3/15/2024,1710498000000,"{ ""a"": 1.0 }",43.65,-79.38\n'
        '0,"lone\rreturn",0,,,,,\n2,\\.,-.5,,0,[],1,2\n'
    )  # fmt: skip
    one.fetch(body)
    one.go()
    try:
        run = one.go("load")
        assert (run.rows_in, run.inserted, run.rejected) == (3, 3, 0)
        found = city(f"select id, name, n, day, at, j, geometry from city.{one.pipeline.table} order by id")
        assert [row[1] for row in found] == ["lone\rreturn", 'two\r\nlines, "x"', "\\."] and [float(row[2]) for row in found] == [0, 1000.5, -0.5]
        assert found[0][3:] == (None, None, None, None)
        assert found[1][3:5] == (datetime(2024, 3, 15), datetime(2024, 3, 15, 6, 20)) and found[1][5] == {"a": 1.0}
        assert found[1][6] == '{"type":"Point","coordinates":[-79.38,43.65]}'
    finally:
        drop_city()


def test_far_fewer_rows_than_usual_are_suspicious_once_a_reader_has_counted_them(table):
    one = table("csv", "id:int")
    for days in range(1, 6):
        ScheduleBlock.objects.create(
            pipeline=one.pipeline, starts_at=DAY - timedelta(days=days), ends_at=DAY - timedelta(days=days - 1), due_at=DAY, stage="standardize",
            state=State.DONE, finished_at=DAY, rows=100, stages=one.pipeline.stages,
        )  # fmt: skip
    one.fetch("id\n" + "".join(f"{number}\n" for number in range(20)))
    run = one.go()
    one.block.refresh_from_db()
    assert (one.block.rows, one.block.mark) == (20, ScheduleBlock.Mark.SUSPICIOUS)
    assert "20 rows came; usual are about 100" in run.message


def test_the_settings_page_tells_the_configured_columns_and_how_the_newest_files_differ(table, client, plain_web):  # noqa: F811
    client.force_login(world.people()[0])
    one = table("csv", "INV_PROJECT>PROJECT", "Opened:date:%Y-%m-%d", "Ward:int", sheet="")
    address = f"{one.pipeline.get_absolute_url()}?tab=settings"
    assert "Columns, as configured" in client.get(address).content.decode()
    one.fetch("INV_PROJECT,Ward,Cost\nx,1,2\n")
    with pytest.raises(DataError):
        one.go()
    html = client.get(address).content.decode()
    assert "The newest files lack Opened." in html and "Not configured: Cost." in html and html.count("missing</span>") == 1
    one.fetch("INV_PROJECT,Opened,Ward\nx,2024-03-15,1\n")
    one.go()
    html = client.get(address).content.decode()
    assert "The newest files" not in html and "%Y-%m-%d" in html
