"""Extract from files at web addresses and from ArcGIS layers: what comes lies in the lake once, what goes is withdrawn, what changed is told."""

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from django.utils import timezone

from catalog.models import CatalogEntry, Dataset, Layer
from opendata_ops.sandbox import arcgis, files, toronto_rows
from pipelines import blocks, stages
from pipelines.errors import PipelineError, SetupError, TransientError
from pipelines.models import Pipeline, Provider, Run, RunState, ScheduleBlock, State
from pipelines.stages.note import Note

pytestmark = pytest.mark.django_db
DAY = datetime(2026, 3, 1, tzinfo=UTC)
YEARLY = "/grants-yyyy.csv"
_numbers = count(1)


class Reading:
    """A snapshot read from day to day; the stages after extract are taken as done, as when all goes well."""

    def __init__(self, tmp_path, kind, base_url, resource, format, **options):
        self.tmp_path, name = tmp_path, f"web{next(_numbers)}"
        provider = Provider.objects.create(slug=name, title="The city’s files", kind=kind, base_url=base_url)
        self.pipeline = Pipeline.objects.create(
            slug=name, title=name, provider=provider, dataset=Dataset.objects.create(slug=name, title=name), resource=resource, format=format,
            cadence="daily", table=name, stages=["extract", "standardize"], options={"attributes": [{"source": "a"}], **options},
        )  # fmt: skip

    def read(self, day=0, **how) -> Run:
        """The block of a day; a failure is raised."""
        starts_at = DAY + timedelta(days=day)
        self.pipeline.refresh_from_db()
        block, _ = ScheduleBlock.objects.get_or_create(
            pipeline=self.pipeline,
            starts_at=starts_at,
            defaults={"ends_at": starts_at + timedelta(days=1), "due_at": timezone.now(), "stage": "extract", "stages": self.pipeline.stages},
        )
        due = timezone.now() - timedelta(seconds=1)
        ScheduleBlock.objects.filter(pk=block.pk).update(stage="extract", state=State.WAITING, due_at=due, **how)
        for stage in ("extract", "standardize"):
            run = blocks.claim(block.pk, holder="test")
            workdir = self.tmp_path / f"work{run.pk}"
            workdir.mkdir()
            if stage == "standardize":
                blocks.advance(run, blocks.Outcome(blocks.Counts()))
                break
            try:
                outcome = stages.carry_out(run, Note(run, workdir, lambda *told: None))
            except PipelineError as error:
                blocks.fail(run, error)
                raise
            blocks.advance(run, outcome)
            read = Run.objects.get(pk=run.pk)
            if outcome.is_final:
                break
        assert read.state in (RunState.DONE, RunState.UNCHANGED) and read.rows_in == read.rows_out + read.unchanged
        return read

    def entries(self, day=0) -> dict[str, CatalogEntry]:
        live = CatalogEntry.objects.live().filter(source=self.pipeline.slug, layer=Layer.RAW, window_start=DAY + timedelta(days=day))
        return {f"{entry.id_base}{entry.id_ext}": entry for entry in live.order_by("id_base")}

    @property
    def all_entries(self) -> int:
        return CatalogEntry.objects.filter(source=self.pipeline.slug).count()


@pytest.fixture
def site(settings):
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    with files.WebFiles(clock=lambda: datetime.now(UTC) - timedelta(days=1)) as one:
        yield one


@pytest.fixture
def maps(settings):
    settings.OUTBOUND_ALLOW = ["127.0.0.1"]
    with arcgis.ArcGIS(arcgis.toronto_layers()) as one:
        yield one


def gets(server):
    return [asked.path for asked in server.requests if asked.method == "GET"]


@pytest.mark.parametrize("tells", [files.BOTH, files.MODIFIED, files.NONE, files.NOW])
def test_the_same_file_is_in_the_lake_once_whatever_its_headers_say(site, tmp_path, tells):
    site.put("/a.csv", b"a\n1\n", tells=tells)
    one = Reading(tmp_path, "web_file", site.url, "/a.csv", "csv")
    first = one.read()
    assert (first.rows_out, first.message) == (1, "1 file, whose rows are counted when they are read")
    site.requests.clear()
    again = one.read(1)
    assert again.unchanged == 1 and one.all_entries == 1
    assert again.message.startswith("The source has not changed" if tells in (files.BOTH, files.MODIFIED) else "What the source gave is what it gave")
    # a version spares the reading, too
    assert gets(site) == ([] if tells in (files.BOTH, files.MODIFIED) else ["/a.csv"])
    site.put("/a.csv", b"a\n2\n", tells=tells)
    assert one.read(2).unchanged == 0 and one.all_entries == 2
    assert one.entries(2)["a.csv"].sha256 != one.entries()["a.csv"].sha256


def test_a_file_that_was_only_touched_is_not_taken_in_again(site, tmp_path):
    site.put("/a.csv", b"a\n1\n", tells=files.MODIFIED)
    one = Reading(tmp_path, "web_file", site.url, "/a.csv", "csv")
    one.read()
    site.put("/a.csv", b"a\n1\n", tells=files.MODIFIED, modified=datetime.now(UTC) - timedelta(hours=1))
    site.requests.clear()
    assert one.read(1).unchanged == 1 and gets(site) == ["/a.csv"] and one.all_entries == 1


def test_what_came_is_taken_in_again_where_the_stages_behind_did_not_go_well_with_it(site, tmp_path):
    site.put("/a.csv", b"a\n1\n", tells=files.NONE)
    one = Reading(tmp_path, "web_file", site.url, "/a.csv", "csv")
    one.read()
    Pipeline.objects.filter(pk=one.pipeline.pk).update(source_version="")
    assert one.read(1).unchanged == 0


def test_force_reads_again_and_so_do_other_options(site, tmp_path):
    site.put("/a.csv", b"a\n1\n", tells=files.NONE)
    one = Reading(tmp_path, "web_file", site.url, "/a.csv", "csv")
    one.read()
    assert one.read(1, is_forced=True).unchanged == 0 and one.read(2).unchanged == 1
    Pipeline.objects.filter(pk=one.pipeline.pk).update(options={"attributes": [{"source": "a", "type": "int"}]})
    assert one.read(3).unchanged == 0 and one.read(4).unchanged == 1


def test_years_lie_in_the_lake_with_their_labels_and_one_that_vanished_is_withdrawn(site, tmp_path):
    for year in (2023, 2024):
        site.put(YEARLY.replace("yyyy", str(year)), f"a\n{year}\n".encode())
    one = Reading(tmp_path, "web_file", site.url, YEARLY, "csv", multi=True)
    assert one.read().rows_out == 2
    assert {name: entry.metadata["date_from_filename"] for name, entry in one.entries().items()} == {
        "grants-2023.csv": "2023",
        "grants-2024.csv": "2024",
    }
    site.remove("/grants-2023.csv")
    assert one.read().rows_out == 1
    assert list(one.entries()) == ["grants-2024.csv"] and one.all_entries == 2


def test_years_stay_when_their_server_is_in_trouble(site, tmp_path):
    for year in (2023, 2024):
        site.put(YEARLY.replace("yyyy", str(year)), b"a\n1\n")
    one = Reading(tmp_path, "web_file", site.url, YEARLY, "csv", multi=True)
    one.read()
    site.fail(403, path="2023", times=1000)
    with pytest.raises(SetupError, match="403"):
        one.read()
    assert list(one.entries()) == ["grants-2023.csv", "grants-2024.csv"]


@pytest.mark.parametrize("edited", [1710498000000, None])
def test_a_layer_is_read_in_pages_and_again_only_when_it_changed(maps, tmp_path, edited):
    layer = maps.layers[toronto_rows.ROADS_PATH]
    layer.edited = edited
    one = Reading(tmp_path, "arcgis", maps.url, toronto_rows.ROADS_PATH, "geojson", where="inv_display_program ='TS_Road_Reconstruction'")
    first = one.read()
    assert (first.rows_in, first.rows_out, first.message) == (90, 90, "90 rows in 2 files")
    assert [entry.rows for entry in one.entries().values()] == [50, 40]
    assert one.read(1).unchanged == 90 and one.all_entries == 2
    maps.edit(toronto_rows.ROADS_PATH, layer.rows()[:40])
    assert one.read(1).rows_out == 30 and [entry.rows for entry in one.entries(1).values()] == [30]
    # another filter is another question
    Pipeline.objects.filter(pk=one.pipeline.pk).update(options={"where": "1=1"})
    assert one.read(2).rows_out == 40


def test_a_layer_that_changes_while_it_is_read_is_not_taken_half(maps, tmp_path):
    layer = maps.layers[toronto_rows.ROADS_PATH]
    one = Reading(tmp_path, "arcgis", maps.url, toronto_rows.ROADS_PATH, "geojson")
    page = maps._page

    def meanwhile(asked, found, query):
        answer = page(asked, found, query)
        maps.layers[toronto_rows.ROADS_PATH].features = layer.rows()[:100]
        return answer

    maps._page = meanwhile
    with pytest.raises(TransientError, match="had 120 features before it was read, and gave 100"):
        one.read()
