"""SoQL: what a condition keeps, what a selection names, and how a bad query is refused."""

import json

import pytest

ROWS = "/resource/abcd-1234.json"


def count(ask, **query):
    return int(ask.json(ROWS, S_select="count(*)", **query)[0]["count"])


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("status = 'Open'", 25),
        ("status != 'Open'", 75),
        ("status = 'open'", 0),
        ("nc > 50", 44),
        ("nc >= 50 and nc <= 59", 9),
        ("nc < '9'", 8),
        ("nc between 10 and 20", 10),
        ("nc not between 10 and 20", 80),
        ("nc is null", 10),
        ("nc is not null", 90),
        ("NOT (nc is null)", 90),
        ("not nc > 50", 46),
        ("srnumber in ('1-1001','1-1002','x')", 2),
        ("srnumber not in ('1-1001','1-1002','x')", 98),
        ("address like '%VANOWEN%'", 25),
        ("address not like '%VANOWEN%'", 50),
        ("address = 'the \"REAR\" house'", 25),
        ("status = 'Open' AND (nc < 10 or nc > 90)", 5),
        ("status='Open' or status='Closed' and nc is null", 35),
        ("updateddate >= '2020-01-03' and updateddate < '2020-01-05'", 20),
        ("updateddate = '2020-01-03T00:01:00'", 5),
        ("updateddate between '2020-01-03' and '2020-01-03T00:00:00.000'", 5),
        (":updated_at > '2020-01-20'", 100),
        (":updated_at > '2020-01-20T00:00:00Z' and :id is not null", 100),
        ("verified", 50),
        ("verified = false", 50),
        ("starts_with(srnumber, '1-109')", 10),
        ("upper(status) = 'OPEN'", 25),
        ("nc + 1 = 100", 1),
        ("`status` = 'Open'", 25),
    ],
)
def test_a_condition_keeps_what_it_says(ask, where, rows):
    assert count(ask, S_where=where) == rows
    assert len(ask.json(ROWS, S_where=where, S_order="srnumber")) == rows


def test_field_equals_value_filters_are_anded_with_the_rest(ask):
    assert count(ask, status="Open", nc="4") == 1
    assert count(ask, status="Open", S_where="nc > 90") == 2
    assert count(ask, S_q="rear house") == 25


@pytest.mark.parametrize(
    ("select", "row"),
    [
        ("count(*)", {"count": "100"}),
        ("count(*) as n", {"n": "100"}),
        ("COUNT(nc)", {"count_nc": "90"}),
        ("max(updateddate),min(nc)", {"max_updateddate": "2020-01-10T00:01:00.000", "min_nc": "0"}),
        ("sum(nc) as total", {"total": str(sum(i for i in range(100) if i % 10 != 3))}),
    ],
)
def test_aggregates_answer_in_one_row(ask, select, row):
    assert ask.json(ROWS, S_select=select) == [row]


def test_groups_are_counted_ordered_and_cut(ask):
    asked = {"S_select": "status,count(*)", "S_group": "status", "S_order": "count(*) DESC"}
    assert ask.json(ROWS, **asked) == [{"status": "Closed", "count": "75"}, {"status": "Open", "count": "25"}]
    assert ask.json(ROWS, **asked, S_limit=1, S_offset=1) == [{"status": "Open", "count": "25"}]
    assert ask.json(ROWS, **asked, S_having="count(*) > 50") == [{"status": "Closed", "count": "75"}]
    by_day = ask.json(ROWS, S_select="date_trunc_ymd(updateddate) as day,count(*)", S_group="date_trunc_ymd(updateddate)", S_order="day")
    assert by_day[0] == {"day": "2020-01-01T00:00:00.000", "count": "10"} and len(by_day) == 10


def test_one_text_may_hold_the_whole_query(ask):
    rows = ask.json(ROWS, S_query="SELECT srnumber AS sr, nc WHERE status = 'Open' ORDER BY nc DESC, sr LIMIT 2 OFFSET 1".replace(", sr", ""))
    assert rows == [{"sr": "1-1092", "nc": "92"}, {"sr": "1-1088", "nc": "88"}]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"S_where": "nothere = 1"}, "query.soql.no-such-column"),
        ({"S_select": "nothere"}, "query.soql.no-such-column"),
        ({"S_order": "nothere"}, "query.soql.no-such-column"),
        ({"nothere": "1"}, "query.soql.no-such-column"),
        ({"S_where": "nc = 'many'"}, "query.soql.type-mismatch"),
        ({"S_where": "srnumber > 5"}, "query.soql.type-mismatch"),
        ({"S_where": "updateddate > '2020-01-01T00:00:00Z'"}, "query.soql.type-mismatch"),
        ({"S_where": "updateddate > 'yesterday'"}, "query.soql.type-mismatch"),
        ({"S_where": "status"}, "query.soql.type-mismatch"),
        ({"S_select": "status,count(*)"}, "query.soql.column-not-in-group-bys"),
        ({"S_select": "frobnicate(nc)"}, "query.soql.no-such-function"),
    ],
)
def test_a_query_that_cannot_be_is_refused_with_its_code(ask, query, code):
    status, _, body = ask(ROWS, **query)
    assert (status, json.loads(body)["errorCode"]) == (400, code)


@pytest.mark.parametrize("where", ["status = ", "status == 'Open' or", "(nc > 1", "nc ? 1", "nc > 1 nc < 2", "'open"])
def test_a_query_that_does_not_parse_is_refused_as_documented(ask, where):
    status, _, body = ask(ROWS, S_where=where)
    told = json.loads(body)
    assert (status, told["code"], told["error"]) == (400, "query.compiler.malformed", True)
    assert "query" in told["data"]


@pytest.mark.parametrize("limit", ["many", "-1", "1.5"])
def test_a_limit_that_is_no_number_is_refused(ask, limit):
    assert ask(ROWS, S_limit=limit)[0] == 400
