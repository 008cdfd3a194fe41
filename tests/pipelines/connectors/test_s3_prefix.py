"""Files by day in a bucket: listed by pages, asked for by what the list said of them, signed with the provider's own keys and no others."""

from datetime import UTC, datetime
from urllib.parse import unquote

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from moto.server import ThreadedMotoServer

from opendata_ops.sandbox.wire import Reply
from pipelines.connectors.base import Account, FetchRequest
from pipelines.connectors.http import Door
from pipelines.connectors.s3_prefix import S3Prefix
from pipelines.errors import DataError, SetupError, TransientError
from tests.pipelines.connectors.servers import Told

JUNE = {day: datetime(2019, 6, day, 5, tzinfo=UTC) for day in range(1, 10)}
NAME = "Austin_bt_%m-%d-%Y.txt"
OPTIONS = {"file": "unmatched", "area": "Austin", "helpers": {"matched": "Austin_btmatch_%m-%d-%Y.txt"}}
KEYS = {"access_key": "AKIACITY", "secret_key": "s3cret-of-the-city"}


def source_at(endpoint: str, address: str = "s3://city-awam/drop", keys=KEYS, allow=("127.0.0.1",)):
    events = []
    door = Door(allow, secrets=tuple(keys.values()), on_event=lambda level, text: events.append((level, text)), sleep=lambda seconds: None)
    return S3Prefix(Account("awam", address, {"endpoint": endpoint}, keys), door), events


def request(first=None, last=None, **options) -> FetchRequest:
    days = {"starts_at": JUNE[first], "ends_at": JUNE[last or first + 1]} if first else {}
    return FetchRequest(columns=(), time_zone="America/Chicago", window_column="at", options={**OPTIONS, **options}, **days)


def fetch(source, work, *days, resource=NAME, **options):
    return list(source.fetch(resource, request(*days, **options), rows=None, workdir=work, progress=lambda done, total: None))


@pytest.fixture(scope="module")
def moto():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    path_style = Config(s3={"addressing_style": "path"})
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y", config=path_style)
    client.create_bucket(Bucket="city-awam")
    yield endpoint, client
    client.close()
    server.stop()


@pytest.fixture
def bucket(moto):
    endpoint, client = moto
    yield source_at(endpoint), lambda key, content: client.put_object(Bucket="city-awam", Key=key, Body=content)
    for item in client.list_objects_v2(Bucket="city-awam").get("Contents", []):
        client.delete_object(Bucket="city-awam", Key=item["Key"])


def test_a_day_comes_from_a_bucket_as_it_does_from_a_folder(bucket, tmp_path):
    (source, events), put = bucket
    put("drop/Austin_bt_06-01-2019.txt", b"a\r\nb")
    put("drop/Austin_btmatch_06-01-2019.txt", b"m\n")
    for junk in ("drop/austin_bt_06-02-2019.txt", "drop/below/Austin_bt_06-03-2019.txt", "dropped/Austin_bt_06-04-2019.txt", "drop/"):
        put(junk, b"x")
    main, helper = fetch(source, tmp_path, 1)
    assert (main.path.read_bytes(), main.rows, main.origin) == (b"a\r\nb", 2, "s3://city-awam/drop/Austin_bt_06-01-2019.txt")
    assert (main.metadata["base"], main.metadata["ext"], main.metadata["collection_date"]) == ("Austin", "unmatched.txt", "2019-06-01")
    assert (helper.metadata["role"], helper.path.read_bytes()) == ("matched", b"m\n")
    assert [level for level, _ in events if level != "debug"] == ["warning"]
    assert "has 1 file that are no files of" in next(text for level, text in events if level == "warning")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Austin_bt_06-01-2019.txt", "Austin_btmatch_06-01-2019.txt"]
    assert source.test() == "s3://city-awam/drop can be read; it holds 5 files"


def test_a_lake_of_atd_data_lake_can_be_read_by_its_folders(bucket, tmp_path):
    (source, _), put = bucket
    for day in ("01", "02"):
        put(f"drop/2019/06/{day}/bt/Austin_bt_2019-06-{day}_unmatched.txt", b"x\n")
    put("drop/2019/06/02/bt/Austin_bt_2019-06-01_unmatched.txt", b"in the wrong folder\n")
    resource = "%Y/%m/%d/bt/Austin_bt_%Y-%m-%d_unmatched.txt"
    assert [one.starts_at for one in source.listing(resource, request(helpers={}))] == [JUNE[1], JUNE[2]]
    [got] = fetch(source, tmp_path, 2, resource=resource, helpers={})
    assert (got.name, got.path.read_bytes()) == ("Austin_bt_2019-06-02_unmatched.txt", b"x\n")


def test_other_bytes_under_a_name_have_another_fingerprint_and_the_same_bytes_again_have_not(bucket):
    (source, _), put = bucket
    put("drop/Austin_bt_06-01-2019.txt", b"one\n")
    [before] = source.listing(NAME, request(helpers={}))
    put("drop/Austin_bt_06-01-2019.txt", b"one\n")
    assert [before] == list(source.listing(NAME, request(helpers={})))
    put("drop/Austin_bt_06-01-2019.txt", b"two\n")
    [after] = source.listing(NAME, request(helpers={}))
    assert after.fingerprint != before.fingerprint


def test_a_file_that_is_changed_after_it_was_listed_is_not_taken(bucket, tmp_path, monkeypatch):
    (source, _), put = bucket
    put("drop/Austin_bt_06-01-2019.txt", b"one\n")
    listed = S3Prefix._held

    def then_changes(self, patterns):
        yield from list(listed(self, patterns))
        put("drop/Austin_bt_06-01-2019.txt", b"two\n")

    monkeypatch.setattr(S3Prefix, "_held", then_changes)
    with pytest.raises(TransientError, match="was changed while it was to be read"):
        fetch(source, tmp_path, 1, helpers={})
    assert list(tmp_path.iterdir()) == [] or all(path.stat().st_size == 0 for path in tmp_path.iterdir())


def test_a_bucket_that_is_not_there_is_a_matter_of_setup(moto):
    source, _ = source_at(moto[0], "s3://no-such-bucket-here/x")
    with pytest.raises(SetupError, match="404") as caught:
        source.test()
    assert caught.value.next_step


# what travels

PAGE = (
    '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>'
    "<IsTruncated>{more}</IsTruncated>{token}{files}</ListBucketResult>"
)
FILE = "<Contents><Key>{key}</Key><Size>4</Size><ETag>&quot;e1&quot;</ETag><LastModified>2019-06-02T00:00:00Z</LastModified></Contents>"


def page(*keys: str, token: str = "") -> Reply:
    told = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    text = PAGE.format(more="true" if token else "false", token=told, files="".join(FILE.format(key=key) for key in keys))
    return Reply(200, text.encode(), "application/xml")


@pytest.fixture
def told():
    server = Told().start()
    yield server
    server.stop()


def test_the_list_is_read_to_its_last_page(told):
    pages = {"": page("drop/Austin_bt_06-01-2019.txt", token="a+/="), "a+/=": page("drop/Austin_bt_06-02-2019.txt")}
    told.says = lambda asked: pages[asked.query.get("continuation-token", "")]
    source, _ = source_at(told.url)
    assert [one.starts_at for one in source.listing(NAME, request(helpers={}))] == [JUNE[1], JUNE[2]]


def test_each_request_is_signed_for_exactly_the_address_that_travels(told, tmp_path):
    """A name with odd letters must be quoted once, and alike where it is signed and where it is sent."""
    name = "x é+%&=(1)~ 06-01-2019.txt"
    file = Reply(200, b"abcd", "text/plain")
    told.says = lambda asked: page(f"a b/{name.replace('&', '&amp;')}") if "list-type" in asked.query else file
    source, events = source_at(told.url, "s3://city-awam/a b")
    [got] = fetch(source, tmp_path, 1, resource="x é+%%&=(1)~ %m-%d-%Y.txt", helpers={})
    assert got.path.read_bytes() == b"abcd" and len(told.requests) == 2
    for asked in told.requests:
        names = ("x-amz-date", "x-amz-content-sha256", "if-match")
        sent = AWSRequest(method="GET", url=f"{told.url}{asked.target}", headers={one: asked.headers[one] for one in names if one in asked.headers})
        sent.context["timestamp"] = asked.headers["x-amz-date"]
        auth = S3SigV4Auth(Credentials(KEYS["access_key"], KEYS["secret_key"]), "s3", "us-east-1")
        signature = auth.signature(auth.string_to_sign(sent, auth.canonical_request(sent)), sent)
        assert asked.headers["authorization"].endswith(f"Signature={signature}")
    assert unquote(told.requests[-1].target) == f"/city-awam/a b/{name}"
    assert not any("s3cret" in text for _, text in events)


def test_without_keys_nothing_of_this_machines_own_is_sent(told, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIALAKE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-lakes-own")
    told.says = page()
    source, _ = source_at(told.url, keys={})
    source.test()
    assert "authorization" not in told.requests[-1].headers


def test_half_a_pair_of_keys_is_a_matter_of_setup(told):
    source, _ = source_at(told.url, keys={"access_key": "AKIACITY"})
    with pytest.raises(SetupError) as caught:
        source.test()
    assert caught.value.code == "credentials-missing"


def test_a_private_address_is_reached_only_where_the_allow_list_names_it(told):
    source, _ = source_at(told.url, allow=())
    with pytest.raises(SetupError):
        source.test()
    assert told.requests == []


@pytest.mark.parametrize("body", [b"<a", b"<a/>", b'<!DOCTYPE x [<!ENTITY y "z">]><ListBucketResult>&y;</ListBucketResult>'])
def test_what_is_no_list_of_a_bucket_is_refused_in_words(told, body):
    told.says = Reply(200, body, "application/xml")
    source, _ = source_at(told.url)
    with pytest.raises(DataError) as caught:
        source.test()
    assert caught.value.code == "not-s3"


@pytest.mark.parametrize("address", ["https://city/x", "s3://City_Awam/x", "s3://b", "s3://bucket/x?y=1", "/srv/drop"])
def test_an_address_that_is_no_bucket_is_refused_in_words(address):
    with pytest.raises(SetupError, match="which is no bucket"):
        source_at("", address)[0].test()


def test_amazons_own_address_is_made_of_bucket_and_region():
    assert source_at("", "s3://city-awam")[0]._base("city-awam") == "https://city-awam.s3.us-east-1.amazonaws.com"
    assert source_at("")[0]._base("awam.city.gov") == "https://s3.us-east-1.amazonaws.com/awam.city.gov"
