"""Custom readers: found by being there, each for its shape; rows flattened, known by their ids, none twice, none lost."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from opendata_ops.sandbox import toronto_rows
from opendata_ops.sandbox.toronto_rows import workbook
from pipelines.errors import DataError, SetupError
from pipelines.formats import custom
from pipelines.formats.nested import flatten, named
from tests.pipelines.formats.reading import configured, read  # noqa: F401

#: Every shape of facts §3.4's list, by the names that the corpus gives its readers.
NAMES = (
    "bodysafe", "dinesafe", "swimsafe", "residential_health_hazards", "toronto_beaches_water_quality", "toronto_beaches_observations",
    "tobids_all_open_solicitations", "tobids_awarded_contracts", "tobids_non_competitive_contracts", "tennis_courts_facilities",
    "drinking_fountains", "council_votes", "members_of_toronto_city_council_voting_record", "building_permits_green_roofs", "library_events",
    "ckan_api_usage",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_there_is_a_reader_for_every_shape(name):
    assert callable(custom.find(name).read)


def test_a_file_of_the_folder_is_all_that_a_reader_takes():
    folder = Path(custom.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert {reader.read.__module__.rpartition(".")[2] for reader in custom.load().values()} == files
    assert all(reader.read.__doc__ for reader in custom.load().values())


def test_one_that_nobody_wrote_says_which_file_to_write():
    with pytest.raises(SetupError) as caught:
        custom.find("snow_plows", "Snow plows")
    assert "'snow_plows'" in caught.value.message and caught.value.message.startswith("Snow plows")
    assert "pipelines/formats/custom/snow_plows.py" in caught.value.next_step and caught.value.code == "no-custom-reader"


def test_two_readers_of_one_name_are_a_mistake():
    custom.load()
    with pytest.raises(TypeError, match="two custom readers are called 'dinesafe'"):
        custom.custom_reader("dinesafe")(lambda raw: iter(()))


# nested JSON


def test_every_innermost_element_is_a_row_with_all_around_it():
    record = {
        "id": 1, "at": {"lat": 43.0, "where": {"type": "Point", "coordinates": [1, 2]}}, "tags": ["a", "b"], "none": [], "inner": {},
        "visits": [{"id": 7, "faults": [{"f": 0}, {"f": 2}]}, {"id": 8, "faults": None}, {"id": 9, "faults": []}],
    }  # fmt: skip
    around = {"id": 1, "lat": 43.0, "where": record["at"]["where"], "tags": ["a", "b"], "none": None, "inner": None}
    assert list(flatten(record)) == [
        {**around, "visits.id": 7, "f": 0},
        {**around, "visits.id": 7, "f": 2},
        {**around, "visits.id": 8, "faults": None},
        {**around, "visits.id": 9, "faults": None},
    ]


def test_lists_side_by_side_are_rows_of_their_own_and_what_is_asked_for_stays_whole():
    record = {"a": 1, "x": [{"p": 1}], "y": [{"q": 2}, {"q": 3}]}
    assert list(flatten(record)) == [{"a": 1, "p": 1}, {"a": 1, "q": 2}, {"a": 1, "q": 3}]
    assert list(flatten(record, keep=("x", "y"))) == [record]


def test_names_are_matched_by_their_letters_and_an_exact_one_goes_first():
    rows = [{"outcomeDate": 1, "Outcome_Date": 2}, {"OutcomeDate": 3, "outcome_date": 4}, {"High_Level_Category": 5, "Num": 6}]
    made = list(named(rows, ["OutcomeDate", "High Level Category", "Document Number"], {"Document Number": "Num"}))
    assert made[1]["OutcomeDate"] == 3 and made[2] == {"High Level Category": 5, "Document Number": 6}


def test_dinesafe_has_a_row_for_each_prosecution_infraction_or_inspection(read):  # noqa: F811
    told, _ = configured("dinesafe", "Dinesafe")
    made = read.custom("dinesafe", toronto_rows.dinesafe(60).body, *told)
    sent = json.loads(toronto_rows.dinesafe(60).body)
    faults = [fault for place in sent for visit in place["inspections"] or [{}] for fault in visit.get("infractions") or [{}]]
    assert made.tally.rows_in == sum(len(fault.get("prosecutions") or [{}]) for fault in faults)
    assert made.tally.duplicates > 0 and made.tally.rejected == 0 and made.tally.rows_out + made.tally.duplicates == made.tally.rows_in
    ids = [row[0] for row in made.rows]
    assert len(set(ids)) == len(ids) and all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)
    fined = {(row[made.header.index("OutcomeDate")][:2], row[made.header.index("amountFined")]) for row in made.rows}
    assert ("20", "0") in fined and ("20", "365.0") in fined and ("", "") in fined
    # what is the same comes out the same, whatever came before it
    again = read.custom("dinesafe", toronto_rows.dinesafe(60).body, *told)
    assert again.text == made.text


def test_a_row_that_came_on_an_earlier_page_is_a_duplicate_and_ids_may_be_made_of_fewer_fields(read):  # noqa: F811
    told = ("unique_id", "estId", "insDate:date:%Y-%m-%d", "fine:int")
    body = '[{"estId": 1, "visits": [{"insDate": "2024-01-01", "fine": 0}, {"insDate": "2024-01-02", "fine": null}]}]'
    first = read.custom("bodysafe", body, *told)
    assert [row[1:] for row in first.rows] == [["1", "2024-01-01", "0"], ["1", "2024-01-02", ""]]
    second = read.again(first.reader, body)
    assert second.rows == [] and second.tally.duplicates == 2
    fewer = read.custom("bodysafe", body, *told, id_fields=["estId"])
    assert len(fewer.rows) == 1 and fewer.tally.duplicates == 1
    # a file that has its own
    own = read.custom("swimsafe", '{"data": [{"uniqueId": "a", "fine": 1}, {"uniqueId": "a", "fine": 2}]}', "unique_id", "fine:int")
    assert own.rows == [["a", "1"]] and own.tally.duplicates == 1


def test_beaches_and_facilities_have_their_points(read):  # noqa: F811
    days = [{"CollectionDate": f"2024-06-0{day}", "eColi": found, "siteName": site} for day, found, site in ((1, 0, "29W"), (2, 1000, "30W"))]
    body = {"data": [{"beachId": 1, "beachName": "Ward’s", "lat": 43.6, "long": -79.3, "data": days}]}
    made = read.custom(
        "toronto_beaches_water_quality", json.dumps(body), "beachId:int", "siteName", "collectionDate:date:%Y-%m-%d", "eColi:int", "geometry"
    )
    point = '{"type":"Point","coordinates":[-79.3,43.6]}'
    assert made.rows == [["1", "29W", "2024-06-01", "0", point], ["1", "30W", "2024-06-02", "1000", point]]
    courts = '{"tennis": [{"ID": "1", "Name": "A", "Lights": "Y", "lat": "43.65", "lng": "-79.38"}]}'
    assert read.custom("tennis_courts_facilities", courts, "ID", "Name", "geometry").rows[0][2] == '{"type":"Point","coordinates":[-79.38,43.65]}'
    places = '{"result": {"total": 1, "records": [{"id": 1, "geometry": {"type": "Point", "coordinates": [-79.380, 43.65]}}]}}'
    assert read.custom("drinking_fountains", places, "id:int", "geometry").rows == [["1", '{"type":"Point","coordinates":[-79.380,43.65]}']]
    seen = '[{"dataCollectionDate": "2024-06-01", "beachName": "Hanlan", "windSpeed": 0, "turbidity": 0.50}]'
    made = read.custom("toronto_beaches_observations", seen, "dataCollectionDate:date:%Y-%m-%d", "windSpeed:int", "turbidity:float")
    assert made.rows == [["2024-06-01", "0", "0.50"]]


def test_what_is_no_object_is_refused_by_custom_readers_too(read):  # noqa: F811
    made = read.custom("residential_health_hazards", '[{"a": 1}, 5, {"a": "x", "b": [{"c": 1}]}]', "a:int")
    assert made.rows == [["1"]] and made.why == [(2, "it is not an object"), (3, "a is not a number")]


# pages


def page(rows: list[dict], count: int) -> str:
    return json.dumps({"@odata.count": count, "value": rows})


def test_pages_of_bids_are_read_until_the_count_that_they_tell(read):  # noqa: F811
    told = ("unique_id", "Document Number", "High Level Category", "Award Date:date:%Y-%m-%d", "Successful Supplier")
    rows = [
        {"Solicitation_Document_Number": f"Doc{number}", "High_Level_Category": "Goods", "Latest_Date_Awarded": "2024-01-02", "Awards": [
            {"Successful_Supplier": f"S{supplier}"} for supplier in range(2)]}
        for number in range(3)
    ]  # fmt: skip
    first = read.custom("tobids_awarded_contracts", page(rows[:2], 3), *told)
    assert [row[1:] for row in first.rows][:2] == [["Doc0", "Goods", "2024-01-02", "S0"], ["Doc0", "Goods", "2024-01-02", "S1"]]
    with pytest.raises(DataError, match="says that it has 3 records, and 2 came") as caught:
        first.reader.finish()
    assert caught.value.code == "pages-missing"
    last = read.again(first.reader, page(rows[2:], 3))
    last.reader.finish()
    assert last.tally.rows_out == 6


# files that are no JSON document


def test_the_punctuation_of_windows_is_what_it_was(read):  # noqa: F811
    told = ("First Name", "Vote Description", "Date/Time>at:timestamp:%Y-%m-%d %I:%M %p")
    head = b"First Name,Vote Description,Date/Time\n"
    line = "Année,Majority\x92s \x96 vote,2024-03-15 1:02 PM\n"
    for encoding in ("latin1", "utf-8"):
        made = read.custom("council_votes", head + line.encode(encoding), *told, encoding=encoding)
        assert made.rows == [["Année", "Majority’s – vote", "2024-03-15T13:02:00"]]
    made = read.custom("council_votes", head + b"Bo,x\x92y,2024-03-15 1:02 PM\nshort\n", *told)
    assert made.rows[0][1] == "x’y" and made.why == [(2, "1 cells where 3 are expected")]


def test_green_roofs_are_joined_with_their_areas(read):  # noqa: F811
    told = ("PERMIT_NUM", "REVISION_NUM", "STATUS", "GREEN_ROOF_AREA:float")
    permits = "PERMIT_NUM,REVISION_NUM,STATUS\n24 100,00,Open\n24 100,01,Closed\n24 101,00,Open\n"
    areas = workbook({"S": [("Permit Num", "REVISION_NUM", "GREEN_ROOF_AREA"), ("24 100", 0, 120.5), ("24 100", 1, 0), ("24 999", 0, 7)]})
    made = read.custom("building_permits_green_roofs", permits, *told, joined=areas)
    assert [row[2:] for row in made.rows] == [["Open", "120.5"], ["Closed", "0"], ["Open", ""]]
    made = read.custom("building_permits_green_roofs", permits, *told, joined=areas, join_on=["PERMIT_NUM"])
    assert [row[3] for row in made.rows] == ["0", "0", ""]
    with pytest.raises(DataError, match="no column in common"):
        read.custom("building_permits_green_roofs", permits, *told, joined=workbook({"S": [("x",), (1,)]}))
    # without the workbook its columns are missing, and that is told
    with pytest.raises(DataError, match="GREEN_ROOF_AREA is in the configuration, but not in the data"):
        read.custom("building_permits_green_roofs", permits, *told)


def test_a_line_that_is_no_event_takes_no_other_along(read):  # noqa: F811
    body = '\ufeff{"title": "Story time", "when": {"start": "2024-01-01"}, "n": 0}\n\nbroken\n[1]\n{"title": "Chess", "n": 2.50}\n'
    made = read.custom("library_events", body, "title", "start:date:%Y-%m-%d", "n:float")
    assert made.rows == [["Story time", "2024-01-01", "0"], ["Chess", "", "2.50"]]
    assert made.why == [(2, "the line is not a JSON object"), (3, "the line is not a JSON object")]


def test_what_a_cloud_function_answers_is_read_in_its_envelope_and_bare(read):  # noqa: F811
    rows = '[{"date": "2024-01-01", "calls": 0}, {"date": "2024-01-02", "calls": 7}]'
    for body in (rows, json.dumps({"statusCode": 200, "body": rows})):
        assert read.custom("ckan_api_usage", body, "date:date:%Y-%m-%d", "calls:int").rows == [["2024-01-01", "0"], ["2024-01-02", "7"]]
    with pytest.raises(DataError, match="error of the source .502.: Internal"):
        read.custom("ckan_api_usage", json.dumps({"statusCode": 502, "body": "Internal"}), "calls:int")
