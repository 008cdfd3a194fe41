"""Files at web addresses: their versions, years and quarters, headers, redirects, and what is no file though it says 200."""

import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest

from opendata_ops.sandbox import Fault, toronto_rows
from opendata_ops.sandbox.files import BOTH, ETAG, MODIFIED, NONE, NOW, WebFiles, toronto_files
from opendata_ops.sandbox.wire import Reply
from pipelines.connectors import web_file
from pipelines.connectors.base import Account, FetchRequest
from pipelines.connectors.http import Door, Manners
from pipelines.errors import DataError, SetupError, TransientError
from tests.pipelines.connectors.servers import Told

NEXT_YEAR = datetime.now(UTC).year + 1
YESTERDAY = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
BUDGET, BODY = "/finance/budget.csv", b'ward,amount\r\n1,"1,000"\r\n'
YEARLY = "/finance/grants-yyyy.xlsx"


@pytest.fixture
def site():
    with WebFiles(clock=lambda: YESTERDAY) as one:
        one.put(BUDGET, BODY)
        yield one
    assert one.mistakes == []


def source(site, *, headers=None, naps=None, **parameters):
    """The connector, with headers whose values are secret."""
    secrets = {f"header_{number}_value": value for number, value in enumerate((headers or {}).values(), 1)}
    parameters |= {f"header_{number}": name for number, name in enumerate(headers or {}, 1)}
    door = Door(
        [site.url.removeprefix("http://")], sleep=(naps if naps is not None else []).append, secrets=[*secrets.values()], owner="provider files"
    )
    return web_file.WebFile(Account("files", site.url, parameters, secrets), door)


def read(one, tmp_path, resource=BUDGET, **options):
    return list(one.fetch(resource, FetchRequest(columns=(), options=options), rows=None, workdir=tmp_path, progress=lambda done, of: None))


def asked(site):
    return [f"{line.method} {line.path}" for line in site.requests]


# one file


def test_a_file_comes_as_it_is(site, tmp_path):
    [file] = read(source(site), tmp_path)
    assert (file.name, file.path.read_bytes(), file.rows, file.bytes) == ("budget.csv", BODY, None, len(BODY))
    assert (file.sha256, file.origin) == (hashlib.sha256(BODY).hexdigest(), f"{site.url}{BUDGET}")
    assert "date_from_filename" not in file.metadata


def test_a_packed_file_comes_unpacked(site, tmp_path):
    site.put(BUDGET, BODY, packs=True)
    [file] = read(source(site), tmp_path)
    assert file.path.read_bytes() == BODY and site.requests[-1].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize(
    ("resource", "format", "name"),
    [
        ("/a/v2?format=json", "json", "v2.json"),
        ("/a/Ward%20profiles (2).csv", "csv", "Ward_profiles_(2).csv"),
        ("/a/files.JSON", "json", "files.JSON"),
        ("/a/b/", "csv", "b.csv"),
        ("/?id=3", "csv", "file.csv"),
        ("/a/report.v2", "csv", "report.v2"),
        (f"/a/{'x' * 300}.csv", "csv", f"{'x' * 100}.csv"),
        ("/a/..%2F..%2Fpasswd", "csv", "passwd.csv"),
    ],
)
def test_a_file_has_a_plain_name(resource, format, name):
    assert web_file.file_name(resource, format) == name


def test_a_query_is_part_of_the_address(site, tmp_path):
    site.put("/ds_od/v2", b"[]")
    [file] = read(source(site), tmp_path, "/ds_od/v2?format=json&a=b c", published_format="json")
    assert file.name == "v2.json" and site.requests[-1].query == {"format": "json", "a": "b c"}


@pytest.mark.parametrize("resource", ["", "https://elsewhere.example/a.csv"])
def test_what_is_no_path_is_refused(site, resource):
    with pytest.raises(SetupError, match="is not a path of provider files"):
        source(site).describe(resource)


@pytest.mark.parametrize(("status", "kind"), [(404, SetupError), (403, SetupError), (410, SetupError), (500, TransientError), (503, TransientError)])
def test_only_a_2xx_is_read(site, tmp_path, status, kind):
    site.put(BUDGET, BODY, status=status)
    for ask in (lambda one: one.describe(BUDGET), lambda one: read(one, tmp_path)):
        with pytest.raises(kind) as caught:
            ask(source(site))
        assert caught.value.code == f"http-{status}"
    assert list(tmp_path.iterdir()) == []


def test_a_window_is_refused_rather_than_forgotten(site, tmp_path):
    with pytest.raises(SetupError, match="read whole, and the pipeline asks for day"):
        list(source(site).fetch(BUDGET, FetchRequest(columns=(), window_column="day"), rows=None, workdir=tmp_path, progress=print))


# versions


@pytest.mark.parametrize("tells", [ETAG, MODIFIED, BOTH])
def test_a_version_stays_until_the_file_changes(site, tells):
    site.put(BUDGET, BODY, tells=tells)
    first = source(site).describe(BUDGET)
    site.put(BUDGET, BODY, tells=tells)
    assert source(site).describe(BUDGET).version == first.version and first.version
    site.put(BUDGET, BODY + b"2,3\r\n", tells=tells)
    assert source(site).describe(BUDGET).version not in (first.version, None)
    assert first.changed_at == (None if tells == ETAG else YESTERDAY)
    assert {line.split()[0] for line in asked(site)} == {"HEAD"}


@pytest.mark.parametrize("tells", [NONE, NOW])
def test_a_server_that_tells_nothing_or_that_its_file_is_always_new_gives_no_version(site, tmp_path, tells):
    site.put(BUDGET, BODY, tells=tells)
    assert source(site).describe(BUDGET).version is None
    # then the bytes decide: the same ones have the same name and mark, which the lake holds once
    first, second = (read(source(site), tmp_path)[0] for _ in range(2))
    assert (first.name, first.sha256) == (second.name, second.sha256)


def test_a_stamp_of_this_very_second_is_no_version_yet(site):
    site.put(BUDGET, BODY, tells=MODIFIED, modified=datetime.now(UTC))
    told = source(site).describe(BUDGET)
    assert told.version is None and told.changed_at is None


def test_headers_that_lie_can_be_left_out_of_account(site):
    assert source(site).describe(BUDGET).version
    assert source(site, changes="bytes").describe(BUDGET).version is None
    with pytest.raises(SetupError, match="told by 'feeling'"):
        source(site, changes="feeling").describe(BUDGET)


@pytest.mark.parametrize("status", [400, 403, 404, 405, 500, 501])
def test_where_head_is_refused_a_get_is_asked_and_its_body_left(site, status):
    site.put(BUDGET, BODY * 100_000)
    told = source(site).describe(BUDGET)
    site.put(BUDGET, BODY * 100_000, head=status)
    one, naps = source(site), []
    assert one.describe(BUDGET).version == told.version
    assert asked(site)[-2:] == [f"HEAD {BUDGET}", f"GET {BUDGET}"] and naps == []
    one.describe(BUDGET)
    # who has said that it knows no HEAD is not asked again
    assert asked(site)[-1] == f"GET {BUDGET}" and (asked(site)[-2] == f"HEAD {BUDGET}") is (status not in (405, 501))


# what came


@pytest.mark.parametrize("wanted", ["csv", "json", "geojson", "xlsx"])
def test_an_error_page_with_status_200_is_named(site, tmp_path, wanted):
    site.put(f"/data.{wanted}", b"\n <!DOCTYPE html><html><head><title>Access\n Denied</title>", content_type="text/plain")
    with pytest.raises(
        DataError, match=rf"answered 200 with a web page \(“Access Denied”\) where {wanted.upper()} was wanted: data\.{wanted}"
    ) as caught:
        read(source(site), tmp_path, f"/data.{wanted}")
    assert caught.value.code == "html-instead" and f"Open {site.url}/data.{wanted} in a browser" in caught.value.next_step


@pytest.mark.parametrize(
    ("wanted", "body", "what"),
    [
        ("csv", b'{"error": "no such file"}', "JSON"), ("csv", b"%PDF-1.7", "a PDF"), ("csv", b"PK\x03\x04....", "an Excel file or zip"),
        ("json", b"<?xml version='1.0'?><Error/>", "XML"), ("geojson", b"\x1f\x8b\x08", "a gzip file"),
        ("xlsx", b"a,b\n1,2\n", "text"), ("xlsx", b"\xd0\xcf\x11\xe0\xa1", r"an Excel file of the old kind \(\.xls\)"),
    ],
)  # fmt: skip
def test_what_can_not_be_what_is_wanted_is_named(site, tmp_path, wanted, body, what):
    site.put("/data", body)
    with pytest.raises(DataError, match=f"with {what} where {wanted.upper()} was wanted"):
        read(source(site), tmp_path, "/data", published_format=wanted)


@pytest.mark.parametrize(
    ("wanted", "body"),
    [
        ("csv", b"\xef\xbb\xbfa,b\n"),
        ("csv", b"[id],[name]\n"),
        ("json", b"\xef\xbb\xbf [1]"),
        ("json", b'{"a": 1}\n{"a": 2}\n'),
        ("xlsx", b"PK\x03\x04"),
    ],
)
def test_what_may_be_it_is_left_to_its_reader(site, tmp_path, wanted, body):
    site.put("/data", body)
    assert read(source(site), tmp_path, "/data", published_format=wanted)[0].path.read_bytes() == body


def test_of_a_reader_of_its_own_only_a_web_page_is_refused(site, tmp_path):
    site.put("/data", b"%PDF-1.7")
    assert read(source(site), tmp_path, "/data", published_format="json", custom_reader="beaches")[0].name == "data.json"
    site.put("/data", b"<html>")
    with pytest.raises(DataError, match="a web page where a file was wanted"):
        read(source(site), tmp_path, "/data", published_format="json", custom_reader="beaches")


def test_an_empty_file_and_a_cut_one_are_asked_for_again_later(site, tmp_path):
    site.put(BUDGET, b"")
    with pytest.raises(TransientError, match="sent an empty budget.csv"):
        read(source(site), tmp_path)
    site.put(BUDGET, BODY)
    site.fail(Fault("cut"), times=4)
    with pytest.raises(TransientError, match="was cut"):
        read(source(site), tmp_path)
    assert list(tmp_path.glob("*.part")) == []


def test_a_file_that_is_too_big_is_refused(site, tmp_path):
    one = source(site)
    one.door.max_bytes = 10
    with pytest.raises(DataError, match="bigger than the 10 bytes"):
        read(one, tmp_path)


# headers and redirects


def test_secret_headers_go_along_and_are_never_shown(site, tmp_path):
    site.put(BUDGET, BODY, wants={"X-Key": "s3cret-1", "X-User": "s3cret-2"})
    events = []
    one = source(site, headers={"X-Key": "s3cret-1", "X-User": "s3cret-2"})
    one.door._on_event = lambda level, text: events.append(text)
    assert one.describe(BUDGET).version and read(one, tmp_path)[0].bytes == len(BODY)
    with pytest.raises(SetupError, match="401: A key is needed") as caught:
        source(site, headers={"X-Key": "wr0ng-key"}).describe(BUDGET)
    assert "wr0ng" not in str(caught.value) and "s3cret" not in "".join(events) and "s3cret" not in repr(one.account)


def test_a_header_without_a_value_is_said_before_anything_is_asked(site):
    with pytest.raises(SetupError, match="header 2 of provider files has no value"):
        source(site, header_2="X-Key").describe(BUDGET)
    assert site.requests == []


@pytest.mark.parametrize("goes", [True, False])
def test_a_redirect_to_another_host_is_followed_without_our_headers(site, tmp_path, goes):
    with WebFiles() as other:
        other.put("/there.csv", BODY)
        site.put("/moved.csv", status=302, to=f"{other.url}/there.csv")
        one = source(site, headers={"X-Key": "s3cret-1"})
        if not goes:
            # the other host is not on the allow-list, and speaks in the clear
            with pytest.raises(SetupError, match="wants to send us to"):
                read(one, tmp_path, "/moved.csv")
            assert other.requests == []
            return
        one.door = Door([site.url.removeprefix("http://"), other.url.removeprefix("http://")], secrets=["s3cret-1"])
        assert read(one, tmp_path, "/moved.csv")[0].path.read_bytes() == BODY
        assert "x-key" in site.requests[-1].headers and "x-key" not in other.requests[-1].headers
        assert one.describe("/moved.csv").version


def test_a_redirect_inside_the_host_keeps_our_headers_and_a_circle_ends(site, tmp_path):
    site.put(BUDGET, BODY, wants={"X-Key": "s3cret-1"})
    site.put("/moved.csv", status=301, to=BUDGET)
    site.put("/round.csv", status=302, to="/round.csv")
    one = source(site, headers={"X-Key": "s3cret-1"})
    assert read(one, tmp_path, "/moved.csv")[0].bytes == len(BODY)
    with pytest.raises(SetupError, match="redirects in a circle"):
        read(one, tmp_path, "/round.csv")


def test_the_door_gives_a_redirect_as_it_is_where_none_is_to_be_followed(site):
    site.put("/moved.csv", status=302, to=BUDGET)
    one = source(site)
    with pytest.raises(TransientError) as caught:
        one.door.look(f"{site.url}/moved.csv", manners=Manners(attempts=1, redirects="none"))
    assert caught.value.code == "http-302" and asked(site) == ["HEAD /moved.csv"]


# years and quarters


def put_years(site, *years, template=YEARLY, **how):
    for year in years:
        site.put(template.replace("yyyy", str(year)), b"PK\x03\x04" + str(year).encode(), **how)


def labels(files):
    return [file.metadata["date_from_filename"] for file in files]


def test_each_year_that_exists_is_a_file_with_its_label(site, tmp_path):
    put_years(site, 2000, 2022, 2024, NEXT_YEAR)
    one = source(site)
    told = one.describe(YEARLY)
    files = read(one, tmp_path, YEARLY, multi=True)
    assert labels(files) == ["2000", "2022", "2024", str(NEXT_YEAR)] == told.metadata["labels"]
    assert [file.name for file in files] == [f"grants-{year}.xlsx" for year in (2000, 2022, 2024, NEXT_YEAR)]
    assert [file.path.read_bytes() for file in files] == [b"PK\x03\x04" + label.encode() for label in labels(files)]
    # once each, and what was found for the description is not asked again for the reading
    years = NEXT_YEAR - 2000 + 1
    assert sorted(asked(site)[:years]) == [f"HEAD {YEARLY.replace('yyyy', str(year))}" for year in range(2000, NEXT_YEAR + 1)]
    assert asked(site)[years:] == [f"GET {YEARLY.replace('yyyy', label)}" for label in labels(files)]


def test_the_version_of_a_template_is_that_of_all_its_files(site):
    put_years(site, 2022, 2023)
    first = source(site).describe(YEARLY).version
    assert source(site).describe(YEARLY).version == first and first
    site.put(YEARLY.replace("yyyy", "2023"), b"PK\x03\x04 other")
    changed = source(site).describe(YEARLY).version
    put_years(site, 2024)
    more = source(site).describe(YEARLY).version
    site.remove(YEARLY.replace("yyyy", "2022"))
    fewer = source(site).describe(YEARLY).version
    assert len({first, changed, more, fewer}) == 4
    # of one file nothing is known: so it is of all
    put_years(site, 2025, tells=NONE)
    assert source(site).describe(YEARLY).version is None


def test_a_year_that_vanished_is_not_among_the_files(site, tmp_path):
    put_years(site, 2022, 2023)
    site.remove(YEARLY.replace("yyyy", "2022"))
    assert labels(read(source(site), tmp_path, YEARLY, multi=True)) == ["2023"]


def test_quarters_have_a_label_each_that_does_not_accumulate(site, tmp_path):
    template = "/ttc/delays-yyyy-qq.csv"
    for name in ("2023-Q4", "2024-q1", "2024-q2", "2024-Q4"):
        site.put(f"/ttc/delays-{name}.csv", name.encode())
    files = read(source(site), tmp_path, template, multi=True)
    assert labels(files) == ["2023-4", "2024-1", "2024-2", "2024-4"]
    assert [file.name for file in files] == [f"delays-{name}.csv" for name in ("2023-Q4", "2024-q1", "2024-q2", "2024-Q4")]
    # four quarters a year in two spellings, and not more
    assert len(site.requests) <= (NEXT_YEAR - 2000 + 1) * 8 + len(files)
    assert "HEAD /ttc/delays-2024-Q1.csv" not in asked(site)


def test_years_that_are_folders_do_not_overwrite_each_other(site, tmp_path):
    template = "/reports/yyyy/summary.csv"
    for year in (2022, 2023):
        site.put(f"/reports/{year}/summary.csv", str(year).encode())
    files = read(source(site), tmp_path, template, multi=True)
    assert [file.name for file in files] == ["2022-summary.csv", "2023-summary.csv"]
    assert [file.path.read_bytes() for file in files] == [b"2022", b"2023"]


@pytest.mark.parametrize("status", [301, 302, 404, 410])
def test_a_redirect_or_a_404_says_that_there_is_none(site, tmp_path, status):
    put_years(site, 2022)
    site.put(YEARLY.replace("yyyy", "2023"), status=status, to="/sorry.html")
    site.put("/sorry.html", b"<html>")
    assert labels(read(source(site), tmp_path, YEARLY, multi=True)) == ["2022"]
    assert "HEAD /sorry.html" not in asked(site)


@pytest.mark.parametrize(("trouble", "kind"), [(Fault(500), TransientError), (Fault("lost_reply"), TransientError), (Fault(403), SetupError)])
def test_a_server_in_trouble_never_says_that_a_year_does_not_exist(site, tmp_path, trouble, kind):
    put_years(site, 2022, 2023)
    site.fail(trouble, path="2023", times=1000)
    for ask in (lambda one: one.describe(YEARLY), lambda one: read(one, tmp_path, YEARLY, multi=True)):
        with pytest.raises(kind):
            ask(source(site))
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_hangs_never_says_that_a_year_does_not_exist(site, tmp_path):
    put_years(site, 2022)
    site.fail(Fault("hang", seconds=30), path="2022", times=10)
    one = source(site)
    one.door.read_timeout, one.door.attempts = 0.2, 1
    with pytest.raises(TransientError) as caught:
        read(one, tmp_path, YEARLY, multi=True)
    assert caught.value.code == "timeout"


def test_a_trouble_that_passes_is_waited_for(site, tmp_path):
    put_years(site, 2022)
    site.fail(next=[Fault(503), Fault(503)], path="2022")
    assert labels(read(source(site), tmp_path, YEARLY, multi=True)) == ["2022"]


@pytest.mark.parametrize("refusal", [405, 404])
def test_a_server_that_refuses_head_is_asked_by_get_before_it_is_said_to_have_none(site, tmp_path, refusal):
    put_years(site, 2022, 2023, head=refusal)
    assert labels(read(source(site), tmp_path, YEARLY, multi=True)) == ["2022", "2023"]


def test_a_template_without_any_file_is_an_error_in_words(site, tmp_path):
    one = source(site)
    assert one.describe(YEARLY).version is None
    with pytest.raises(SetupError, match="has no grants-yyyy.xlsx of any year from 2000 on") as caught:
        read(one, tmp_path, YEARLY, multi=True)
    assert caught.value.code == "no-files" and caught.value.next_step
    with pytest.raises(SetupError, match="its address has no yyyy"):
        read(one, tmp_path, BUDGET, multi=True)


def test_without_the_option_yyyy_is_a_name_like_any_other(site, tmp_path):
    site.put("/yyyy.csv", BODY)
    [file] = read(source(site), tmp_path, "/yyyy.csv")
    assert file.name == "yyyy.csv" and "date_from_filename" not in file.metadata


def test_a_year_that_goes_between_two_questions_is_asked_for_again(site, tmp_path):
    put_years(site, 2022, 2023)
    one = source(site)
    one.describe(YEARLY)
    site.remove(YEARLY.replace("yyyy", "2023"))
    with pytest.raises(TransientError, match="was there a moment ago") as caught:
        read(one, tmp_path, YEARLY, multi=True)
    assert caught.value.code == "source-moved"


def test_an_error_page_in_the_place_of_a_year_is_an_error_and_not_a_missing_year(site, tmp_path):
    put_years(site, 2022)
    site.put(YEARLY.replace("yyyy", "2023"), b"<html><title>Sorry</title>", content_type="text/html")
    with pytest.raises(DataError, match="a web page .* grants-2023.xlsx"):
        read(source(site), tmp_path, YEARLY, multi=True)


def test_no_more_than_three_questions_are_on_their_way_at_once(site):
    site.latency = 0.02
    at_once, most, answer = set(), [], site.answer

    def counting(request, fault):
        at_once.add(id(request))
        most.append(len(at_once))
        site.stopping.wait(0.01)
        at_once.discard(id(request))
        return answer(request, fault)

    site.answer = counting
    put_years(site, 2022)
    source(site).describe(YEARLY)
    assert max(most) <= web_file.PROBES


# pages of OData, and further files


class Bids(Told):
    """Awards in pages of OData, told to say how many there are, or where the next page is, or neither."""

    def __init__(self, rows=7, *, counts=True, links=False, most=3, lost=0):
        super().__init__()
        self.rows, self.counts, self.links, self.most, self.lost = rows, counts, links, most, lost

    def answer(self, request, fault):
        query = request.query
        skip = int(query.get("$skip", 0))
        page = list(range(self.rows))[skip : skip + min(self.most, int(query.get("$top", self.most)))]
        told = {"@odata.context": "Awards", "value": [{"number": one, "note": "}]"} for one in page]}
        if self.counts or query.get("$count"):
            told["@odata.count"] = self.rows + self.lost
        if self.links and skip + self.most < self.rows:
            told["@odata.nextLink"] = f"{request.path}?$filter=a%20eq%201&$skip={skip + self.most}"
        return Reply.of(told)


def numbers(files):
    return [row["number"] for file in files for row in json.loads(file.path.read_bytes())["value"]]


@pytest.mark.parametrize(("counts", "links"), [(True, False), (False, True), (True, True)])
def test_of_a_page_of_odata_the_others_come_too(tmp_path, counts, links):
    with Bids(counts=counts, links=links) as site:
        files = read(source(site), tmp_path, "/odata/Awards?$filter=a eq 1", published_format="json")
    assert numbers(files) == list(range(7)) and [file.name for file in files] == ["Awards.json", "Awards-00002.json", "Awards-00003.json"]
    assert all(line.query["$filter"] == "a eq 1" for line in site.requests) and len(site.requests) == 3


def test_the_bids_portal_is_asked_page_by_page_from_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.connectors.odata.TOP", 3)
    with Bids(counts=False, most=1000) as site:
        files = read(source(site), tmp_path, "/odata/Awards?$orderby=n", published_format="json", custom_reader="tobids_awarded_contracts")
        assert numbers(files) == list(range(7))
        assert [(line.query["$top"], line.query["$skip"], line.query["$count"]) for line in site.requests] == [
            ("3", "0", "true"), ("3", "3", "true"), ("3", "6", "true"),
        ]  # fmt: skip
        assert {line.query["$orderby"] for line in site.requests} == {"n"}


def test_pages_that_are_not_what_was_counted_are_refused(tmp_path):
    with Bids(lost=1) as site, pytest.raises(DataError, match="page 4 has no rows, and says that there are more"):
        read(source(site), tmp_path, "/Awards", published_format="json")
    with Bids(lost=-1, most=4) as site, pytest.raises(TransientError, match="has 6 rows in all, and its pages gave 7"):
        read(source(site), tmp_path, "/Awards", published_format="json")


def test_a_next_page_at_another_host_is_not_followed(tmp_path):
    body = json.dumps({"value": [{"a": 1}], "@odata.nextLink": "https://elsewhere.example/p2"})
    with Told(Reply(200, body.encode())) as site, pytest.raises(SetupError, match="names a next page at elsewhere.example"):
        read(source(site, headers={"X-Key": "s3cret-1"}), tmp_path, "/a", published_format="json")


def test_json_that_is_no_odata_is_one_file_whatever_it_holds(site, tmp_path):
    for body in (b"[1, 2]", b'{"value": [1]}', b'{"a": "\\"@odata.count\\": 9"}', b'{"@odata.context": "x", "value": []}'):
        site.put("/a.json", body)
        assert len(read(source(site), tmp_path, "/a.json")) == 1
    site.put("/a.json", b'{"@odata.count": 3, "value": [1')
    with pytest.raises(TransientError, match="is not the JSON"):
        read(source(site), tmp_path, "/a.json")


def test_further_files_come_with_their_role(site, tmp_path):
    site.put("/roofs.xlsx", b"PK\x03\x04")
    first, second = read(source(site), tmp_path, helpers={"joined": "/roofs.xlsx"}, custom_reader="building_permits_green_roofs")
    assert ("role" in first.metadata, second.metadata["role"], second.name) == (False, "joined", "joined-roofs.xlsx")
    site.put("/roofs.xlsx", b"<html>")
    with pytest.raises(DataError, match="a web page where XLSX was wanted"):
        read(source(site), tmp_path, helpers={"joined": "/roofs.xlsx"})
    with pytest.raises(SetupError, match="option helpers"):
        read(source(site), tmp_path, helpers=["/roofs.xlsx"])


# the button, and the city's own files


def test_the_test_asks_for_a_path_or_for_the_server(site):
    host = site.url.removeprefix("http://")
    assert source(site).test() == f"{host} answers"
    assert source(site, test_path=BUDGET).test() == f"{host} gives {BUDGET}"
    assert "can't be tested without a path" in source(site, headers={"X-Key": "s3cret-1"}).test()
    site.put(BUDGET, BODY, wants={"X-Key": "s3cret-1"})
    with pytest.raises(SetupError, match="401"):
        source(site, headers={"X-Key": "wr0ng-key"}, test_path=BUDGET).test()
    site.fail(Fault(503), times=10)
    with pytest.raises(TransientError):
        source(site).test()


def test_the_files_of_toronto_are_read_whole(tmp_path):
    with toronto_files() as site:
        one = source(site)
        for path, make in toronto_rows.FILES.items():
            form = "json" if path == toronto_rows.DINESAFE_PATH else ""
            [file] = read(one, tmp_path, path, **({"published_format": form} if form else {}))
            assert file.sha256 == make().sha256, path
        files = read(one, tmp_path, toronto_rows.GRANTS_TEMPLATE, multi=True, published_format="xlsx")
    assert labels(files) == [str(year) for year in toronto_rows.GRANT_YEARS]


def test_a_person_with_curl_can_change_a_file(site):
    one = source(site)
    first = one.describe(BUDGET).version
    assert one.door.post_json(f"{site.url}/__sandbox/put", {"path": BUDGET, "text": "a\n1\n"}) == [BUDGET]
    assert one.describe(BUDGET).version != first
    assert one.door.post_json(f"{site.url}/__sandbox/remove", {"path": BUDGET}) == []
    assert json.loads(one.door.ask("GET", f"{site.url}/__sandbox/requests").body)
