"""The portal is good enough for sodapy, the client that cities use: it reads from it and publishes to it."""

import pytest

from opendata_ops.sandbox import Dataset, Portal

from .conftest import COLUMNS, small_rows

sodapy = pytest.importorskip("sodapy")


@pytest.fixture
def client():
    from requests.adapters import HTTPAdapter

    datasets = [Dataset("abcd-1234", "Requests", COLUMNS, small_rows(), key="srnumber")]
    with Portal(*datasets, accounts={"pub": "right"}) as portal:
        adapter = {"prefix": "http://", "adapter": HTTPAdapter()}
        with sodapy.Socrata(f"127.0.0.1:{portal.port}", "token", username="pub", password="right", session_adapter=adapter) as client:
            yield client


def test_sodapy_reads_rows_metadata_and_catalog(client):
    assert client.get("abcd-1234", where="status='Open'", select="count(*)") == [{"count": "25"}]
    assert len(list(client.get_all("abcd-1234", order="srnumber"))) == 100
    assert client.get("abcd-1234", content_type="csv", limit=2, order="srnumber")[1][0] == "1-1000"
    assert client.get_metadata("abcd-1234")["name"] == "Requests"
    assert [entry["resource"]["id"] for entry in client.datasets()] == ["abcd-1234"]


def test_sodapy_upserts_replaces_and_deletes(client, tmp_path):
    assert client.upsert("abcd-1234", [{"srnumber": "new"}, {"srnumber": "1-1000", "nc": 9}])["Rows Created"] == 1
    assert client.delete("abcd-1234", row_id="new")[0]["typ"] == "delete"
    (tmp_path / "rows.csv").write_text("srnumber,status\na,Open\nb,Closed\n")
    with open(tmp_path / "rows.csv", "rb") as file:
        assert client.replace("abcd-1234", file)["Rows Created"] == 2
    assert client.get("abcd-1234", select="srnumber", order="srnumber") == [{"srnumber": "a"}, {"srnumber": "b"}]


def test_sodapy_sees_the_portal_s_own_words_of_refusal(client):
    from requests.exceptions import HTTPError

    with pytest.raises(HTTPError, match="Illegal field name sent: colour"):
        client.upsert("abcd-1234", [{"srnumber": "x", "colour": "red"}])
    with pytest.raises(HTTPError, match="permission_denied|does not delete"):
        client.delete("abcd-1234")
