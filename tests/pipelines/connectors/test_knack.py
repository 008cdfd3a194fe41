"""Knack as a source of inventories: paging, filters, joins and manners, against a small Knack of our own."""

import json

import pytest

from opendata_ops.sandbox.wire import Reply
from pipelines.connectors.base import Account
from pipelines.connectors.http import Door
from pipelines.connectors.knack import Knack
from pipelines.errors import DataError, SetupError, TransientError
from tests.pipelines.connectors.servers import Told

LABELS = {
    "object_11": ["ATD_LOCATION_ID", "COA_INTERSECTION_ID", "CROSS_ST", "CROSS_ST_SEGMENT_ID", "LOCATION", "PRIMARY_ST",
                  "PRIMARY_ST_SEGMENT_ID", "SIGNAL_ID"],
    "object_56": ["DEVICE_TYPE", "ATD_DEVICE_ID", "Reader Id", "DEVICE_STATUS", "DEVICE_IP", "ATD_LOCATION_ID", "KITS_ID", "Technician"],
    "object_98": ["ATD_DEVICE_ID", "DEVICE_STATUS", "DEVICE_IP", "IP_COMM_STATUS", "SIGNAL_ID"],
}  # fmt: skip
KEYS = {name: {label: f"field_{number}" for number, label in enumerate(labels, 10)} for name, labels in LABELS.items()}
KEYS["object_56"]["DEVICE_TYPE"] = "field_884"


def record(name: str, number: int, **values) -> dict:
    """As Knack tells it: a formatted and a raw value of each field."""
    told = {"id": f"{name}-{number}"}
    for label, value in values.items():
        key = KEYS[name][label]
        told |= {key: f"<span>{value}</span>", f"{key}_raw": value}
    return told


RECORDS = {
    "object_11": [
        record("object_11", 1, ATD_LOCATION_ID="LOC1", PRIMARY_ST=" LAMAR ", CROSS_ST="MLK", COA_INTERSECTION_ID=5150, SIGNAL_ID=12,
               LOCATION={"latitude": 30.27, "longitude": -97.75}),
        record("object_11", 2, ATD_LOCATION_ID="LOC2", PRIMARY_ST="BURNET", SIGNAL_ID=None),
    ],
    "object_56": [
        record("object_56", 1, DEVICE_TYPE="BLUETOOTH", ATD_DEVICE_ID=2001, **{"Reader Id": "lamar_mlk"}, DEVICE_IP="10.0.0.1", KITS_ID="7",
               ATD_LOCATION_ID=[{"id": "x", "identifier": "LOC1"}], Technician="A. Person"),
        record("object_56", 2, DEVICE_TYPE="RADAR", ATD_DEVICE_ID=3001, ATD_LOCATION_ID="LOC2", KITS_ID=1),
        record("object_56", 3, DEVICE_TYPE="BLUETOOTH", ATD_DEVICE_ID=2002, **{"Reader Id": "ghost"}, ATD_LOCATION_ID="LOC9"),
    ],
    "object_98": [record("object_98", 1, ATD_DEVICE_ID=4001, DEVICE_IP="10.0.0.9", IP_COMM_STATUS="OFFLINE", SIGNAL_ID="12")],
}  # fmt: skip


class SmallKnack(Told):
    """Two records a page; `object_98` is filtered by nothing, for its field is not among its labels."""

    def __init__(self, **more):
        super().__init__(**more)
        self.lost = 0
        self.broken: Reply | None = None

    def answer(self, request, fault):
        if self.broken:
            return self.broken
        if request.headers.get("x-knack-rest-api-key") != "s3cret" or request.headers.get("x-knack-application-id") != "app1":
            return Reply.of({"message": "Unauthorized"}, 401)
        _, _, _, name, what = request.path.split("/")
        if what == "fields":
            return Reply.of({"fields": [{"label": label, "key": key, "type": "short_text"} for label, key in KEYS[name].items()]})
        rules = json.loads(request.query.get("filters", "{}")).get("rules", [])
        fits = [one for one in RECORDS[name] if all(one.get(f"{rule['field']}_raw", rule["value"]) == rule["value"] for rule in rules)]
        page = int(request.query["page"])
        return Reply.of(
            {
                "records": fits[page * 2 - 2 : page * 2],
                "current_page": page,
                "total_pages": -(-len(fits) // 2),
                "total_records": len(fits) + self.lost,
            }
        )


@pytest.fixture
def server():
    with SmallKnack() as one:
        yield one


def knack(server, naps: list | None = None, *, key: str = "s3cret", **parameters) -> Knack:
    door = Door([server.url.removeprefix("http://")], secrets=[key], sleep=(naps if naps is not None else []).append)
    return Knack(Account("knack", server.url, {"app_id": "app1", **parameters}, {"api_key": key}), door)


def test_an_inventory_is_its_devices_with_their_places(server):
    lamar, ghost = knack(server).units("bt")
    assert lamar == {
        "device_type": "BLUETOOTH", "atd_device_id": 2001, "device_name": "lamar_mlk", "device_status": None, "device_ip": "10.0.0.1",
        "ip_comm_status": None, "kits_id": "7", "atd_location_id": "LOC1", "coa_intersection_id": 5150, "primary_st": "LAMAR",
        "primary_st_segment_id": None, "cross_st": "MLK", "cross_st_segment_id": None, "lat": 30.27, "lon": -97.75,
    }  # fmt: skip
    # a place that is not there leaves the device without one; who looks after it is nobody's business
    assert (ghost["device_name"], ghost["atd_location_id"], ghost["lat"], "technician" in ghost) == ("ghost", "LOC9", None, False)
    [radar] = knack(server).units("wt")
    assert (radar["atd_device_id"], radar["kits_id"], radar["lat"], radar["primary_st"]) == (3001, 1, None, "BURNET")


def test_cameras_are_joined_by_their_signal_and_are_called_what_the_setup_says(server):
    [camera] = knack(server).units("gs")
    assert (camera["device_type"], camera["lat"], camera["atd_location_id"], camera["ip_comm_status"]) == ("GRIDSMART", 30.27, "LOC1", "OFFLINE")
    assert "device_name" not in camera and "kits_id" not in camera
    asked = [request.query for request in server.requests if request.path.endswith("object_98/records")]
    assert json.loads(asked[0]["filters"]) == {"match": "and", "rules": [{"field": "field_2384", "operator": "is", "value": 1}]}


def test_all_pages_are_read_at_most_nine_calls_a_second(server):
    naps = []
    assert len(list(knack(server, naps).units("bt"))) == 2
    pages = [(request.path.split("/")[3], request.query["page"]) for request in server.requests if request.path.endswith("records")]
    assert pages == [("object_11", "1"), ("object_56", "1")]
    inventories = json.dumps({"all": {"object": "object_56", "join": "ATD_LOCATION_ID"}})
    assert len(list(knack(server, naps, inventories=inventories).units("all"))) == 3
    assert [request.query.get("page") for request in server.requests][-2:] == ["1", "2"]
    assert len(naps) == len(server.requests) and all(nap == pytest.approx(1 / 9) for nap in naps)


def test_records_that_change_while_they_are_read_are_read_again(server):
    server.lost = 1
    with pytest.raises(TransientError, match="Knack has 3 records of object_11, and gave 2"):
        list(knack(server).units("bt"))


def test_a_busy_knack_is_asked_five_times_and_a_wrong_key_once(server):
    server.broken = Reply.of({"message": "rate limit"}, 429)
    with pytest.raises(TransientError, match="5 times"):
        list(knack(server).units("bt"))
    assert len(server.requests) == 5
    server.broken = None
    with pytest.raises(SetupError, match="401") as caught:
        knack(server, key="wrong").test()
    assert "wrong" not in str(caught.value) and len(server.requests) == 6
    assert knack(server).test() == "Knack answered: object_11, where the places are, has 8 fields."


@pytest.mark.parametrize(
    ("code", "parameters", "words"),
    [
        ("xx", {}, "no inventory 'xx'; there are bt, gs, wt"),
        ("bt", {"inventories": "{"}, "parameter inventories is not JSON"),
        ("bt", {"inventories": "[]"}, "parameter inventories is no JSON object"),
        ("bt", {"inventories": '{"bt": {"object": "object_56"}}'}, "bt needs an object and a join"),
        ("bt", {"inventories": '{"bt": {"object": "object_56", "join": "A", "where": [1]}}'}, "needs where and constants"),
        ("bt", {"location_field": "POINT"}, "object_11 in Knack has no field labelled 'POINT'"),
        ("bt", {"app_id": ""}, "wants an application id"),
    ],
)
def test_what_is_set_up_wrong_is_told_with_the_provider(server, code, parameters, words):
    with pytest.raises(SetupError, match=words) as caught:
        list(knack(server, **parameters).units(code))
    assert caught.value.code == "knack-setup" and "knack" in caught.value.next_step


@pytest.mark.parametrize("body", [[], {"fields": "none"}, {"fields": [{"label": "LOCATION"}]}])
def test_an_answer_that_is_not_knacks_is_not_taken(server, body):
    server.broken = Reply.of(body)
    with pytest.raises(DataError) as caught:
        knack(server).test()
    assert caught.value.code == "not-knack"
