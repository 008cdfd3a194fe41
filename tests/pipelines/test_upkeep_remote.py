"""Remote files: their times, and the files themselves, brought to a small CKAN; the original's messages; what goes wrong with one file alone."""

from email.utils import format_datetime
from urllib.parse import unquote

import pytest
from django.utils import timezone

from opendata_ops.sandbox.wire import Reply
from pipelines.models import UpkeepJob, UpkeepRun
from pipelines.upkeep import jobs, portals
from tests.pipelines.connectors.servers import Told
from tests.pipelines.small_ckan import done, found, package, portal, resource, well  # noqa: F401  a fixture

pytestmark = pytest.mark.django_db
TIMES, FILES = "remote-file-times", "remote-files"
AT, EARLIER, LATER = "2020-10-02T08:30:15", "2020-10-01 08:30:15.123456", "2021-01-01T00:00:00"


class Web(Told):
    """A city's file server: `files` maps a path to its bytes, all changed at AT; `odd` to how it answers otherwise."""

    def __init__(self):
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.odd: dict[str, Reply] = {}
        self.refuses_head = False

    def answer(self, request, fault):
        path = unquote(request.path)
        if path in self.odd:
            return self.odd[path]
        if path not in self.files:
            return Reply(404)
        if request.method == "HEAD" and self.refuses_head:
            return Reply(405)
        changed = format_datetime(portals.moment(AT), usegmt=True)
        return Reply(200, self.files[path], "application/octet-stream", {"Last-Modified": changed})


@pytest.fixture
def web(settings, portal):  # noqa: F811
    with Web() as server:
        settings.OUTBOUND_ALLOW = [*settings.OUTBOUND_ALLOW, server.url.removeprefix("http://")]
        yield server


# times


@pytest.fixture
def times(web, portal):  # noqa: F811
    """A portal with a file of each kind: older here, newer here, the same, twice, and none; its patches are in `.patched`."""

    def link(id: str, name: str, path: str, **fields):
        return resource(id, name, url=f"{web.url}{path}", datastore_active=False, url_type="", **fields)

    web.files = dict.fromkeys(("/a.xlsx", "/b.xlsx", "/c.zip", "/twice.csv"), b"x")
    portal.packages = [
        package("moved", link("a", "A", "/a.xlsx", last_modified=EARLIER), link("b", "B", "/b.xlsx", last_modified=LATER)),
        package("same", link("c", "C", "/c.zip", last_modified=None, created=f"{AT}.987654")),
        package("shelter", link("t1", "T 1", "/twice.csv"), link("t2", "T 2", "/twice.csv")),
    ]
    portal.patched = []
    portal.actions["resource_patch"] = lambda given: portal.patched.append(given) or given
    return portal


def asked(web, **more) -> dict[str, list[str]]:
    return {name: [f"{web.url}{path}" for path in paths] for name, paths in more.items()}


def test_the_message_is_the_originals(times, web):
    """Facts 1.4, as the original was run; behind a package that failed it stands now why."""
    times.packages[0]["resources"].pop(0)
    run = well(TIMES, files=asked(web, moved=["/b.xlsx"], shelter=["/twice.csv"], same=["/c.zip"]))
    why = "(2 resources of it have this address)"
    assert run.notice.replace(why, "") == (
        "\n*synced - packages: 1\tresources: 1*\n1. _B_: `2020-10-02T08:30:15`"
        "\n*error - packages: 1\tresources: 1*\n1. shelter "
        "\n*unchanged - packages: 1\tresources: 1*"
    )
    assert why in run.notice and run.details["trouble"]


def test_a_resource_says_the_files_time_be_it_older_or_newer_and_an_equal_one_is_left_alone(times, web):
    run = well(TIMES, files=asked(web, moved=["/a.xlsx", "/b.xlsx"], same=["/c.zip"]))
    assert times.patched == [{"id": "a", "last_modified": AT}, {"id": "b", "last_modified": AT}]
    assert found(run, "resource", "outcome") == [("A", "synced"), ("B", "synced"), ("C", "unchanged")]
    # the order of the original: the whole catalogue first, then file by file
    assert times.names() == ["package_search", "resource_patch", "resource_patch"]


def test_a_dry_run_patches_nothing(times, web):
    run = well(TIMES, files=asked(web, moved=["/a.xlsx"]), is_dry=True)
    assert times.patched == [] and found(run, "outcome", "last modified") == [("would be synced", AT)]


def test_where_nothing_is_new_nobody_is_told_but_the_end_of_trouble_is(times, web, settings):
    settings.ENVIRONMENT = "prod"
    texts = []
    with Told(lambda request: texts.append(request.json()["text"]) or Reply(200, b"ok", "text/plain")) as slack:
        settings.NOTICE_WEBHOOK, settings.OUTBOUND_ALLOW = slack.url, ["127.0.0.1"]
        assert well(TIMES, files=asked(web, same=["/c.zip"])).noticed == "Nobody was told: there was nothing new to tell."
        well(TIMES, files=asked(web, same=["/nowhere"]))
        for _ in range(2):
            well(TIMES, files=asked(web, same=["/c.zip"]))
    assert len(texts) == 2 and "error" in texts[0] and texts[1].endswith("*unchanged - packages: 1\tresources: 1*")


def test_what_goes_wrong_with_one_file_is_told_and_the_others_are_synced(times, web):
    web.odd["/html"] = Reply(200, b"<html>", "text/html")
    times.packages[0]["resources"] += [
        resource("h", "H", url=f"{web.url}/html"),
        resource("g", "G", url=f"{web.url}/gone"),
        resource("o", "O", url=f"{web.url}/b.xlsx?odd", last_modified="yesterday"),
    ]
    run = well(TIMES, files=asked(web, absent=["/x"], moved=["/html", "/gone", "/b.xlsx?odd", "/unknown", "/a.xlsx"]))
    told = found(run, "package", "outcome", "why")
    assert [(package_name, outcome) for package_name, outcome, _ in told] == [("absent", "error"), *[("moved", "error")] * 4, ("moved", "synced")]
    for why, words in zip(
        [line[2] for line in told], ["no such package", "Last-Modified is missing", "404", "date can't be read", "0 resources"], strict=False
    ):
        assert words in why
    assert times.patched == [{"id": "a", "last_modified": AT}]


def test_signs_that_nobody_sees_in_an_address_do_not_matter(times, web):
    times.packages[0]["resources"][0]["url"] += "\u200b"
    well(TIMES, files={"moved": [f" {web.url}/a.xlsx\u200b\n"]})
    assert [given["id"] for given in times.patched] == ["a"]


def test_a_server_that_refuses_head_is_asked_by_get(times, web):
    web.refuses_head = True
    well(TIMES, files=asked(web, moved=["/a.xlsx"]))
    assert times.patched and [request.method for request in web.requests] == ["HEAD", "GET"]


def test_the_originals_list_is_understood_too(times, web):
    well(TIMES, files=[{"package_id": "moved", "files": [f"{web.url}/a.xlsx"]}])
    assert [given["id"] for given in times.patched] == ["a"]


def test_a_job_without_files_has_no_work_and_says_so_when_it_is_asked(portal):  # noqa: F811
    for kind in (TIMES, FILES):
        assert not jobs.kinds()[kind]().has_work(UpkeepJob(kind=kind))
        run = done(kind)
        assert run.state == UpkeepRun.State.FAILED and "which files are meant is not said" in run.message
    assert portal.asked == []


# files


@pytest.fixture
def shop(web, portal):  # noqa: F811
    """A portal that takes files, with the resource `Old` of the package `shelters`; what it was sent is in `.sent`."""
    portal.packages = [package("shelters", resource("o", "Old", last_modified=EARLIER, url="https://open/download/old.csv"))]
    portal.sent = []

    def take(action):
        def taken(given):
            [shelters] = portal.packages
            portal.sent.append((action, given))
            # as CKAN does, what is sent is dated by its own clock
            told = {"last_modified": "2026-11-22T00:00:00.5"} | {name: value for name, value in given.items() if name != "upload"}
            if action == "resource_create":
                made = {"id": f"new-{len(shelters['resources'])}"} | told
                shelters["resources"].append(made)
            else:
                made = next(one for one in shelters["resources"] if one["id"] == given["id"])
                made |= told
            return made

        return taken

    for action in ("resource_create", "resource_patch"):
        portal.actions[action] = take(action)
    web.files = {"/old.csv": b"a,b\n1,2\n", "/Beds 2.xlsx": b"x" * 1_258_291, "/map.zip": b"PK"}
    return portal


def wishes(web, **files) -> dict:
    return {"shelters": {name: {"format": "CSV", "url": f"{web.url}{path}", **more} for name, (path, more) in files.items()}}


def test_a_new_file_makes_a_resource_a_changed_one_keeps_its_id_and_both_have_the_files_time(shop, web):
    files = wishes(web, Old=("/old.csv", {}), Beds=("/Beds%202.xlsx", {"format": "XLSX"}))
    run = well(FILES, files=files)
    assert [(action, given.get("id"), given.get("name"), given.get("upload")) for action, given in shop.sent] == [
        ("resource_create", None, "Beds", ("Beds 2.xlsx", b"x" * 1_258_291)),
        ("resource_patch", "new-1", None, None),
        ("resource_patch", "o", None, ("old.csv", b"a,b\n1,2\n")),
        ("resource_patch", "o", None, None),
    ]
    made = shop.sent[0][1]
    assert (made["package_id"], made["format"], made["is_preview"], made["extract_job"]) == (
        "id-shelters",
        "XLSX",
        "False",
        "Open Data Ops: remote-files",
    )
    assert [given["last_modified"] for _, given in shop.sent if "last_modified" in given and "upload" not in given] == [AT, AT]
    assert run.notice == "\n*uploaded*\nBeds: `2020-10-02 08:30` | 1.2 MB\nOld: `2020-10-02 08:30` | 0.0 MB"
    assert found(run, "resource_name", "resource_id", "result", "last_modified", "size_mb") == [
        ("Beds", "new-1", "uploaded", "2020-10-02 08:30", 1.2), ("Old", "o", "uploaded", "2020-10-02 08:30", 0.0),
    ]  # fmt: skip
    # once more: nothing is new, nothing is sent, nobody is told
    sent = len(shop.sent)
    again = well(FILES, files=files)
    assert len(shop.sent) == sent and again.message == "2 files asked: 2 unchanged." and again.notice.endswith("2 files unchanged")
    assert not [request for request in web.requests if request.method == "GET"][2:]


def test_a_name_that_holds_a_quote_or_another_script_arrives_as_one(shop, web):
    web.files['/say "hi" à São.csv'] = b"x"
    well(FILES, files=wishes(web, Old=("/say%20%22hi%22%20%C3%A0%20S%C3%A3o.csv", {})))
    assert shop.sent[0][1]["upload"] == ("say %22hi%22 à São.csv", b"x")


def test_a_link_is_not_downloaded_and_says_how_large_its_file_is(shop, web):
    files = wishes(web, Map=("/map.zip", {"format": "ZIP", "link": True}))
    well(FILES, files=files)
    [(_, made), (_, dated)] = shop.sent
    assert (made["url"], made["size"], made["format"], dated["last_modified"]) == (f"{web.url}/map.zip", 2, "ZIP", AT) and "upload" not in made
    assert [request.method for request in web.requests] == ["HEAD"]
    web.files["/elsewhere.zip"] = b"PK!"
    well(FILES, files=wishes(web, Map=("/elsewhere.zip", {"format": "ZIP", "link": True})))
    assert shop.sent[2][1] == {"id": "new-1", "url": f"{web.url}/elsewhere.zip", "size": 3}


def test_a_file_a_year_is_brought_for_each_year_that_exists_under_its_own_name(shop, web):
    this_year = timezone.now().year
    web.files = {f"/lobby/gifts {year}.csv": b"a\n" for year in (2019, this_year)}
    web.odd["/lobby/gifts 2018.csv"] = Reply(302, headers={"Location": "/gone"})
    run = well(FILES, files=wishes(web, **{"gifts yyyy": ("/lobby/gifts%20yyyy.csv", {})}))
    assert found(run, "resource_name", "result") == [("gifts 2019.csv", "uploaded"), (f"gifts {this_year}.csv", "uploaded")]


def test_what_goes_wrong_with_one_file_is_told_and_the_others_are_brought(shop, web):
    shop.packages[0]["resources"] += [resource("d1", "Twice"), resource("d2", "Twice")]
    web.files |= {"/page.csv": b"<html>"}
    page = Reply(200, b"<html>", "text/html", {"Last-Modified": "Fri, 02 Oct 2020 08:30:15 GMT"})
    web.odd["/page.csv"] = page
    files = wishes(web, Gone=("/gone.csv", {}), Page=("/page.csv", {}), Twice=("/old.csv", {}), Years=("/yyyy.csv", {}), Old=("/old.csv", {}))
    run = well(FILES, files={"absent": {"X": {"format": "CSV", "url": f"{web.url}/old.csv"}}, **files})
    told = found(run, "package_name", "resource_name", "result", "why")
    assert [line[:3] for line in told] == [
        ("absent", "X", "error"), ("shelters", "Gone", "error"), ("shelters", "Old", "uploaded"), ("shelters", "Page", "error"),
        ("shelters", "Twice", "error"), ("shelters", "Years", "error"),
    ]  # fmt: skip
    for why, words in zip(
        [line[3] for line in told], ["no such package", "404", "", "a web page came", "2 resources", "no file of any year"], strict=False
    ):
        assert words in why
    assert run.notice.splitlines()[1:4] == ["*uploaded*", "Old: `2020-10-02 08:30` | 0.0 MB", "*error*"] and run.details["trouble"]


def test_a_dry_run_downloads_and_sends_nothing(shop, web):
    run = well(FILES, files=wishes(web, Old=("/old.csv", {}), Map=("/map.zip", {"link": True})), is_dry=True)
    assert shop.sent == [] and {request.method for request in web.requests} == {"HEAD"}
    assert found(run, "resource_name", "result") == [("Map", "would be uploaded"), ("Old", "would be uploaded")]


def test_stopped_between_the_file_and_its_time_the_next_run_brings_it_once_more(shop, web, monkeypatch):
    files = wishes(web, Old=("/old.csv", {}))
    monkeypatch.setenv("ODO_FAULT", "remote-file.sent:1:raise")
    assert "InjectedFault" in done(FILES, files=files).message
    assert shop.packages[0]["resources"][0]["last_modified"] != AT
    monkeypatch.delenv("ODO_FAULT")
    well(FILES, files=files)
    assert shop.packages[0]["resources"][0]["last_modified"] == AT and len(shop.packages[0]["resources"]) == 1


@pytest.mark.parametrize(
    "files", [{"shelters": {"Beds": {"url": "https://x"}}}, {"shelters": ["https://x"]}, {"shelters": {"Beds": {"format": "CSV"}}}]
)
def test_a_file_that_is_written_wrongly_is_named_before_anything_is_asked(portal, files):  # noqa: F811
    run = done(FILES, files=files)
    assert run.state == UpkeepRun.State.FAILED and "url and format are needed" in run.message and portal.asked == []
