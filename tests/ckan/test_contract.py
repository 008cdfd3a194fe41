"""The practice city's CKAN says what a real CKAN says: both are asked the same questions, and their answers are laid side by side.

What differs by nature is levelled first: ids, moments, the host, and what of CKAN's answers nobody reads (LEFT_OUT).
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from opendata_ops.sandbox.ckan import Ckan
from pipelines.connectors.ckan_exchange import function as exchange
from tests.ckan.real import RealCkan

pytestmark = pytest.mark.needs("redis")

#: keys of answers that the fake does not have, or that say something of the machine
LEFT_OUT = {
    "calculate_record_count", "delete_fields", "filterops", "include_next_page", "info", "__extras", "idx_size", "db_size", "size_of_index",
    "created", "last_active", "email_hash", "extensions", "email", "apikey", "fullname", "about", "activity_streams_email_notifications",
    "image_url", "image_display_url", "number_created_packages", "num_followers", "users", "creator_user_id", "index_name",
}  # fmt: skip
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
NOW = re.compile(r"20(?:2[5-9]|[3-9]\d)-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?")
COLUMNS = [
    {"id": "k", "type": "int", "info": {"notes": "The key", "label": "Key"}},
    {"id": "t", "type": "text"},
    {"id": "f", "type": "float"},
    {"id": "d", "type": "date"},
    {"id": "ts", "type": "timestamp"},
    {"id": "j", "type": "json"},
    {"id": "b", "type": "bool"},
    {"id": "Name with: spaces %", "type": "text"},
]
ROWS = [
    {"k": 1, "t": "x", "f": 1.5, "d": "2024-01-02", "ts": "2024-01-02T03:04:05", "j": {"a": [1, 2]}, "b": True, "Name with: spaces %": 'é\n,"'},
    {"k": 2},
    {"k": None, "t": "", "f": 0, "j": '{"z": 1}', "d": None, "b": False},
]


class Talk:
    """One conversation with a portal: what was asked, and what it answered, levelled."""

    def __init__(self, portal: RealCkan | Ckan):
        self.portal = portal
        self.answers: list[tuple[str, int, Any]] = []
        self._ids: dict[str, str] = {}
        self._session = requests.Session()
        self._session.trust_env = False

    def ask(self, action: str, /, who: str = "sysadmin", **params: Any) -> Any:
        """Ask as "sysadmin", "editor" or "nobody"; returns the result or the error."""
        return self._told(action, self._session.post(self._address(action), json=params, headers=self._key(who), timeout=60))

    def send(self, action: str, /, who: str = "editor", **how: Any) -> Any:
        """The same with any arguments of requests."""
        return self._told(action, self._session.post(self._address(action), headers=self._key(who) | how.pop("headers", {}), timeout=60, **how))

    def fetch(self, address: str, who: str = "editor") -> None:
        reply = self._session.get(address, headers=self._key(who), timeout=60)
        self.answers.append(("GET", reply.status_code, reply.text if reply.ok else ""))

    def _address(self, action: str) -> str:
        return f"{self.portal.url}/api/3/action/{action}"

    def _key(self, who: str) -> dict[str, str]:
        keys = {"sysadmin": self.portal.sysadmin_key, "editor": self.portal.editor_key, "stranger": "not-a-key"}
        return {"Authorization": keys[who]} if who in keys else {}

    def _told(self, action: str, reply: requests.Response) -> Any:
        told = reply.json()
        if isinstance(told, str):
            self.answers.append((action, reply.status_code, told.split(":")[0]))
            return told
        assert told["success"] is (reply.status_code == 200) and "help" in told
        answer = told["result"] if told["success"] else told["error"]
        self.answers.append((action, reply.status_code, self._levelled(answer)))
        return answer

    def _levelled(self, answer: Any) -> Any:
        if isinstance(answer, dict):
            return {name: self._levelled(value) for name, value in answer.items() if name not in LEFT_OUT}
        if isinstance(answer, list):
            return [self._levelled(each) for each in answer]
        if not isinstance(answer, str):
            return answer
        text = answer.replace(self.portal.url, "PORTAL")
        text = UUID.sub(lambda found: self._ids.setdefault(found[0], f"id-{len(self._ids)}"), text)
        text = re.sub(r'unique constraint "\w+"', "unique constraint", NOW.sub("NOW", text))
        return re.sub(r"'val_\d+'", "'k'", text)


Conversation = Callable[[Talk], None]


def a_table(talk: Talk, **how: Any) -> str:
    """The id of an editor's resource with COLUMNS and ROWS."""
    talk.ask("package_create", "editor", name="shelters", owner_org="city")
    made = talk.ask("resource_create", "editor", package_id="shelters", name="Daily", format="csv", url_type="datastore")
    talk.ask("datastore_create", "editor", resource_id=made["id"], fields=COLUMNS, records=ROWS, **how)
    return made["id"]


def datasets_are_made_said_of_and_found(talk: Talk) -> None:
    talk.ask("package_list")
    talk.ask(
        "package_create", "editor", name="shelters", owner_org="city", title="Shelters", notes="n", tags=[{"name": "two words"}, {"name": "abc"}],
        topics=["Housing"], is_retired=False, unknown_field="u", license_id="other-open", excerpt=None, information_url="", license_url="https://x",
        extras=[{"key": "x", "value": "1"}],
    )  # fmt: skip
    talk.ask("package_show", "nobody", id="shelters")
    talk.ask("package_patch", "editor", id="shelters", title="Shelters of the city", topics=["Health", "Water"], refresh_rate="Daily")
    talk.ask("package_patch", "editor", id="shelters", extras=[{"key": "y", "value": "2"}])
    talk.ask("package_create", name="unowned", license_id="cc-by", resources=[{"name": "a", "url": "_datastore_only_resource"}, {"name": "b"}])
    talk.ask("package_list")
    talk.ask("package_search", "nobody", q="*:*", sort="name asc", rows=1, start=1)
    talk.ask("package_search", "nobody", fq="name:shelters", rows=5000)
    talk.ask("package_search", "nobody", rows=0)
    talk.ask("package_search", rows="x")
    talk.ask("package_search", nothing=1)
    talk.ask("current_package_list_with_resources", limit=1)
    talk.ask("organization_list")
    talk.ask("organization_show", id="city")
    talk.ask("organization_list_for_user", "editor", permission="create_dataset")
    talk.ask("organization_list_for_user", "nobody")


def what_is_wrong_with_a_dataset_is_said_field_by_field(talk: Talk) -> None:
    for wrong in (
        {"name": "x y"}, {"name": "a"}, {"name": "x" * 101}, {"name": "new"}, {"title": "no name"},
        {"name": "ok", "owner_org": "nothing"},
        {"name": "ok", "private": True}, {"name": "ok", "tags": [{"name": "a"}]}, {"name": "ok", "tags": [{"name": "a/b"}]},
        {"name": "ok", "extras": [{"key": "topics", "value": "a"}]},
        {"name": "ok", "extras": [{"key": "o", "value": "1"}, {"key": "o", "value": "2"}]},
    ):  # fmt: skip
        talk.ask("package_create", **wrong)
    talk.ask("package_create", name="taken")
    talk.ask("package_create", name="taken")
    talk.ask("package_show")
    talk.ask("package_show", id="nothing")
    talk.ask("package_patch", id="nothing", title="x")
    talk.ask("resource_show", id="nothing")
    talk.ask("resource_create", name="R")
    talk.ask("resource_create", package_id="nothing", name="R")
    talk.ask("resource_patch", name="x")
    talk.ask("resource_patch", id="nothing", name="x")
    talk.ask("resource_delete", id="nothing")
    talk.ask("organization_show", id="nothing")
    talk.ask("no_such_action")


def nobody_does_what_only_others_may(talk: Talk) -> None:
    for who in ("nobody", "stranger"):
        talk.ask("package_create", who, name="mine")
        talk.ask("user_show", who)
    talk.ask("user_show", "editor")
    talk.ask("package_create", "editor", name="hidden", owner_org="city", private=True)
    made = talk.ask("resource_create", "editor", package_id="hidden", name="R", url_type="datastore")
    id = made["id"]
    talk.ask("datastore_create", "editor", resource_id=id, fields=COLUMNS)
    for action, params in (
        ("package_show", {"id": "hidden"}), ("resource_show", {"id": id}), ("datastore_search", {"resource_id": id}),
        ("package_patch", {"id": "hidden", "title": "x"}), ("resource_patch", {"id": id, "name": "x"}), ("package_delete", {"id": "hidden"}),
        ("datastore_create", {"resource_id": id, "records": []}), ("datastore_upsert", {"resource_id": id, "records": []}),
        ("datastore_delete", {"resource_id": id, "force": True}),
    ):  # fmt: skip
        talk.ask(action, "nobody", **params)
    body = "BEGIN RETURN NEW; END;"
    talk.ask("datastore_function_create", "editor", name="f", rettype="trigger", definition=body)
    talk.ask("datastore_function_delete", "editor", name="f")
    talk.ask("dataset_purge", "editor", id="hidden")
    talk.ask("package_search", "nobody", include_private=True)
    talk.ask("package_search", "editor", include_private=True)
    # a draft is a sysadmin's to make
    talk.ask("package_create", "editor", name="draft-1", owner_org="city", state="draft", private=True)
    talk.ask("package_create", name="draft-2", owner_org="city", state="draft", private=True)
    talk.ask("package_search", include_private=True, sort="name asc")


def resources_keep_what_they_are_told(talk: Talk) -> None:
    talk.ask("package_create", "editor", name="shelters", owner_org="city")
    made = talk.ask(
        "resource_create", "editor", package_id="shelters", name="Daily", format="geojson", url="https://x.example/a.csv", url_type="datastore",
        is_preview=True, extract_job="Airflow: x", lists=["a", "b"], number=5,
    )  # fmt: skip
    talk.ask("resource_patch", "editor", id=made["id"], last_modified="2024-01-02T03:04:05", name="Hourly")
    talk.ask("resource_patch", "editor", id=made["id"], last_modified="nonsense")
    talk.ask("resource_patch", "editor", id=made["id"], datastore_active=True)
    linked = talk.ask("resource_create", "editor", package_id="shelters", name="Link", format="ZIP", url="https://x.example/a.zip", size=12)
    talk.ask("resource_patch", "editor", id=linked["id"], url="https://x.example/b.zip", size=13, format="foo")
    talk.ask("resource_show", "nobody", id=linked["id"])
    talk.ask("resource_delete", "editor", id=made["id"])
    talk.ask("resource_show", id=made["id"])
    talk.ask("package_show", id="shelters")


def files_are_uploaded_and_fetched(talk: Talk) -> None:
    talk.ask("package_create", "editor", name="shelters", owner_org="city")
    form = {"package_id": "shelters", "name": "File", "format": "csv", "extract_job": "Airflow: upload"}
    made = talk.send("resource_create", data=form, files={"upload": ("A file.csv", b"a,b\n1,2\n")})
    talk.fetch(made["url"])
    # the moment of the upload wins over the one that is sent along
    again = talk.send(
        "resource_patch", data={"id": made["id"], "last_modified": "2024-01-01T00:00:00"}, files={"upload": ("b.csv", b"a,b\n1,2\n3,4\n")}
    )
    talk.fetch(again["url"])
    talk.ask("resource_patch", "editor", id=made["id"], last_modified="2024-01-01T00:00:00")


def questions_come_in_many_forms(talk: Talk) -> None:
    talk.send("package_create", data=json.dumps({"name": "by-curl"}), headers={"Content-Type": "application/json"})
    talk.send("package_show", data={"id": "by-curl"})
    talk.send("package_show", data="{bad", headers={"Content-Type": "application/json"})
    reply = talk._session.get(talk._address("package_show"), params={"id": "by-curl"}, timeout=60)
    talk._told("package_show", reply)
    talk._told("package_create", talk._session.get(talk._address("package_create"), params={"name": "by-address"}, timeout=60))


def rows_are_typed_and_come_back_as_they_are(talk: Talk) -> None:
    id = a_table(talk, primary_key="k")
    talk.ask("datastore_search", "nobody", resource_id=id)
    talk.ask("resource_show", id=id)
    for row in (
        {"k": 10, "f": ""}, {"k": 5.5}, {"k": "1,000"}, {"k": "12"}, {"k": 11, "d": "02/03/2024"}, {"k": 13, "d": "junk"},
        {"k": 13, "d": "2024-13-01"},
        {"k": 14, "t": 5, "ts": "2024-01-02T03:04:05.123Z", "b": "false"}, {"k": 15, "f": "abc"}, {"k": 2**31}, {"k": 16, "b": 1},
        {"k": 17, "b": "maybe"}, {"k": True}, {"k": 18, "j": "text"}, {"k": 19, "j": 0}, {"k": 20, "j": []}, {"k": 21, "j": ""},
        {"k": 22, "ts": "abc"},        {"k": 23, "t": {"a": 1}}, {"k": 24, "f": "1e3", "ts": "2024-01-02"}, {"k": 1}, {"k": 25, "nothere": 1},
    ):  # fmt: skip
        talk.ask("datastore_upsert", "editor", resource_id=id, method="insert", records=[row])
    talk.ask("datastore_search", resource_id=id, sort="k", fields="k,t,f,d,ts,j,b", limit=100)
    talk.ask("datastore_info", id=id)["meta"].clear()
    talk.answers.pop()  # its sizes are the database's
    talk.ask("datastore_create", "editor", resource_id=id, fields=[{"id": "k"}, {"id": "n", "type": "numeric"}, {"id": "tz", "type": "timestamptz"}])
    talk.ask("datastore_upsert", "editor", resource_id=id, records=[{"k": 90, "n": "1.10", "tz": "2024-01-02T03:04:05-05:00"}])
    talk.ask("datastore_upsert", "editor", resource_id=id, records=[{"k": 91, "n": "x"}])
    talk.ask("datastore_search", resource_id=id, filters={"k": 90})


def rows_are_upserted_by_their_key_all_or_none(talk: Talk) -> None:
    id = a_table(talk, primary_key=["k"])
    talk.ask("datastore_upsert", "editor", resource_id=id, records=[{"k": 2, "t": "two"}, {"k": 3, "t": "three"}])
    talk.ask("datastore_upsert", "editor", resource_id=id, records=[{"k": 3, "f": 3.5}, {"k": 3, "f": 4.5}])
    talk.ask("datastore_upsert", "editor", resource_id=id, records=[{"k": 4}, {"k": "x"}])
    talk.ask("datastore_upsert", "editor", resource_id=id, records=[{"t": "no key"}])
    talk.ask("datastore_upsert", "editor", resource_id=id, records=[{"k": 4, "nothere": 1}])
    talk.ask("datastore_upsert", "editor", resource_id=id, records=[{"k": 77}], method="update")
    talk.ask("datastore_upsert", "editor", resource_id=id, records=[{"k": 3, "t": "updated"}], method="update")
    talk.ask("datastore_upsert", "editor", resource_id=id, records=[{"k": 3}], method="other")
    talk.ask("datastore_upsert", "editor", resource_id=id, records=["x"], method="insert")
    talk.ask("datastore_upsert", "editor", records=[])
    talk.ask("datastore_search", resource_id=id, fields="k,t,f", sort="k")
    # the key goes, comes again, and is refused while two rows share it
    talk.ask("datastore_create", "editor", resource_id=id, primary_key=[])
    talk.ask("datastore_upsert", "editor", resource_id=id, records=[{"k": 1}], method="upsert")
    talk.ask("datastore_upsert", "editor", resource_id=id, records=[{"k": 1}], method="insert")
    talk.ask("datastore_create", "editor", resource_id=id, primary_key=["k"])
    talk.ask("datastore_delete", "editor", resource_id=id, filters={"k": 1})
    talk.ask("datastore_create", "editor", resource_id=id, primary_key=["k"])
    talk.ask("datastore_upsert", "editor", resource_id=id, records=[{"k": 1, "t": "one"}])
    talk.ask("datastore_create", "editor", resource_id=id, primary_key=["zz"])
    talk.ask("datastore_search", resource_id=id, fields="k,t", sort="k")


def columns_are_declared_added_and_described(talk: Talk) -> None:
    talk.ask("package_create", "editor", name="shelters", owner_org="city")
    id = talk.ask("resource_create", "editor", package_id="shelters", name="R", url_type="datastore")["id"]
    for fields in (
        [{"id": "_a"}], [{"id": 'a"b'}], [{"id": " a"}], [{"id": "a", "type": "nonsense"}], [{"id": "a"}], [{"id": "x" * 64, "type": "text"}],
        [{"id": "a", "type": "text"}, {"id": "b", "type": "int"}],
        # another type changes nothing; words stay until there are others
        [{"id": "a", "type": "int", "info": {"notes": "A"}}, {"id": "b", "type": "int"}],
        [{"id": "a", "type": "text"}, {"id": "b", "type": "int"}, {"id": "c", "type": "float"}],
        [{"id": "a", "info": {"label": "x"}}, {"id": "b"}, {"id": "c", "info": {}}],
    ):  # fmt: skip
        talk.ask("datastore_create", "editor", resource_id=id, fields=fields)
    talk.ask("datastore_search", resource_id=id)
    talk.ask("datastore_create", "editor", resource_id=id, records=[{"a": "1", "new": "2024-01-01", "n": 1, "obj": {"x": 1}}])
    talk.ask("datastore_create", "editor", resource_id=id, records=[{"a": "1"}, {"strange": 1}])
    talk.ask("datastore_search", resource_id=id)
    talk.ask("datastore_create", "editor", resource_id=id, fields=[{"id": "a", "type": "text"}], delete_fields=True)
    talk.ask("datastore_search", resource_id=id)
    talk.ask("datastore_create", fields=COLUMNS)
    talk.ask("datastore_create", resource_id="nothing", fields=COLUMNS)
    made = talk.ask("datastore_create", "editor", resource={"package_id": "shelters", "name": "Made", "format": "csv"}, records=[{"a": 1, "b": "x"}])
    talk.ask("resource_show", id=made["resource_id"])
    talk.ask("datastore_search", resource_id=made["resource_id"])


def a_search_sorts_filters_and_pages(talk: Talk) -> None:
    id = a_table(talk)
    talk.ask(
        "datastore_upsert", "editor", resource_id=id, method="insert", records=[{"k": number, "t": f"row {number % 3}"} for number in range(10, 20)]
    )
    for asked in (
        {"limit": 0}, {"limit": 3, "offset": 2}, {"limit": "2", "offset": "1"}, {"limit": -1}, {"limit": "x"}, {"sort": "k desc", "limit": 3},
        {"sort": "k desc nulls last, t", "limit": 3}, {"sort": "t, k desc", "fields": "k,t", "limit": 8}, {"sort": ["k"], "limit": 1},
        {"sort": "nothere"}, {"fields": "nothere"}, {"fields": ["_id", "k"], "limit": 2}, {"filters": {"nothere": 1}}, {"filters": {"k": [10, 12]}},
        {"filters": {"k": 11, "t": "row 2"}}, {"filters": {"_id": {"gt": 11}}, "sort": "_id"}, {"filters": {"_id": {"gte": 3, "lt": 6}}},
        {"filters": {"k": "x"}}, {"filters": {"k": None}}, {"filters": {"k": []}}, {"filters": {"k": ""}}, {"filters": {"k": {"zz": 1}}},
        {"filters": '{"k": 10}'}, {"filters": "x"}, {"filters": {"_id": [{"gt": 12}, {"eq": 1}]}}, {"filters": {"d": "2024-01-02"}},
        {"filters": {"t": ""}}, {"include_total": False, "limit": 1}, {"records_format": "lists", "limit": 2}, {"records_format": "zz"},
        {"filters": {"ts": "2024-01-02T03:04:05"}}, {"filters": {"b": True}}, {"filters": {"f": 1.5}},
    ):  # fmt: skip
        talk.ask("datastore_search", "nobody", resource_id=id, **asked)
    talk.ask("datastore_search", "nobody")
    talk.ask("datastore_search", resource_id="nothing")
    talk.fetch(f"{talk.portal.url}/datastore/dump/{id}")


def rows_and_tables_are_deleted(talk: Talk) -> None:
    id = a_table(talk)
    talk.ask("datastore_delete", "editor", resource_id=id, filters={"k": 1})
    talk.ask("datastore_delete", "editor", resource_id=id, filters={"nothere": 1})
    talk.ask("datastore_delete", "editor", resource_id=id, filters={"_id": {"lte": 2}})
    talk.ask("datastore_search", resource_id=id, fields="_id,k")
    talk.ask("datastore_records_delete", "editor", resource_id=id, filters={"_id": [3]})
    talk.ask("datastore_records_delete", "editor", resource_id=id)
    talk.ask("datastore_upsert", "editor", resource_id=id, method="insert", records=[{"k": 9}])
    talk.ask("datastore_delete", "editor", resource_id=id, filters={})
    talk.ask("datastore_search", resource_id=id)
    talk.ask("datastore_delete", "editor", resource_id=id)
    talk.ask("datastore_search", resource_id=id)
    talk.ask("resource_show", id=id)
    talk.ask("datastore_delete", "editor", resource_id=id)
    talk.ask("datastore_upsert", "editor", resource_id=id, records=[])
    talk.ask("datastore_delete", resource_id="nothing")
    talk.ask("package_delete", "editor", id="shelters")
    talk.ask("package_show", "nobody", id="shelters")
    talk.ask("package_list")
    talk.ask("package_create", "editor", name="shelters", owner_org="city")
    talk.ask("dataset_purge", id="shelters")


def what_is_no_table_of_the_datastore_needs_force(talk: Talk) -> None:
    talk.ask("package_create", "editor", name="shelters", owner_org="city")
    id = talk.ask("resource_create", "editor", package_id="shelters", name="R", url="https://x.example/a.csv")["id"]
    for action, params in (
        ("datastore_create", {"fields": COLUMNS}),
        ("datastore_upsert", {"method": "insert", "records": ROWS}),
        ("datastore_delete", {}),
    ):
        talk.ask(action, "editor", resource_id=id, **params)
        talk.ask(action, "editor", resource_id=id, force=True, **params)


def functions_are_made_fired_and_deleted_by_sysadmins(talk: Talk) -> None:
    id = a_table(talk)
    body = "BEGIN RETURN NEW; END;"
    talk.ask("datastore_function_create", name="stamp", rettype="trigger", definition=body)
    talk.ask("datastore_function_create", name="stamp", rettype="trigger", definition=body)
    talk.ask("datastore_function_create", name="stamp", rettype="trigger", definition=body, or_replace=True)
    talk.ask("datastore_function_create", name="bad", rettype="trigger", definition="BEGIN bad")
    talk.ask("datastore_create", resource_id=id, triggers=[{"function": "nothere"}])
    talk.ask("datastore_function_delete", name="nothere")
    talk.ask("datastore_function_delete", name="nothere", if_exists=True)
    talk.ask("datastore_create", resource_id=id, triggers=[{"function": "stamp"}], records=[{"k": 5}])
    talk.ask("datastore_search", resource_id=id, fields="k")
    talk.ask("datastore_function_delete", name="stamp")
    talk.ask("datastore_delete", resource_id=id)
    talk.ask("datastore_function_delete", name="stamp")


def two_tables_are_exchanged_by_the_function_of_the_connector(talk: Talk) -> None:
    live = a_table(talk, primary_key=["k"])
    talk.ask("package_create", name="staging")
    staged, control = (talk.ask("resource_create", package_id="staging", name=name, url_type="datastore")["id"] for name in ("rows", "exchange"))
    columns = [{"id": "k", "type": "int8", "info": {"notes": "Another key"}}, {"id": "new", "type": "text"}]
    talk.ask("datastore_create", resource_id=staged, fields=columns, primary_key=["k"])
    talk.ask("datastore_upsert", resource_id=staged, method="insert", records=[{"k": 1, "new": "a"}, {"k": 2, "new": "b"}])
    fires = {"fields": [{"id": "fires", "type": "text"}], "triggers": [{"function": "swap"}], "records": [{"fires": "now"}]}

    def asks_for(rows: int, token: str) -> None:
        body = exchange(live, staged, token, rows, {"k": "int8", "new": "text"}, ("k",), "english")
        talk.ask("datastore_function_create", name="swap", rettype="trigger", definition=body, or_replace=True)

    # not with another number of rows; then once, however often it is asked for
    asks_for(3, "the first")
    talk.ask("datastore_create", resource_id=control, **fires)
    talk.ask("datastore_search", resource_id=live, fields="k")
    asks_for(2, "the second")
    talk.ask("datastore_create", resource_id=control, **fires)
    talk.ask("datastore_search", resource_id=live)
    talk.ask("datastore_search", resource_id=staged, fields="k,t")
    talk.ask("datastore_create", resource_id=control, **fires)
    talk.ask("datastore_search", resource_id=live)
    # the key came along, and what there was goes with the dataset that held it
    talk.ask("datastore_upsert", "editor", resource_id=live, records=[{"k": 2, "new": "c"}])
    talk.ask("datastore_delete", resource_id=control)
    talk.ask("datastore_delete", resource_id=staged)
    talk.ask("datastore_function_delete", name="swap")
    talk.ask("dataset_purge", id="staging")
    talk.ask("datastore_search", "nobody", resource_id=live)


@pytest.mark.parametrize(
    "conversation",
    [
        datasets_are_made_said_of_and_found,
        what_is_wrong_with_a_dataset_is_said_field_by_field,
        nobody_does_what_only_others_may,
        resources_keep_what_they_are_told,
        files_are_uploaded_and_fetched,
        questions_come_in_many_forms,
        rows_are_typed_and_come_back_as_they_are,
        rows_are_upserted_by_their_key_all_or_none,
        columns_are_declared_added_and_described,
        a_search_sorts_filters_and_pages,
        rows_and_tables_are_deleted,
        what_is_no_table_of_the_datastore_needs_force,
        functions_are_made_fired_and_deleted_by_sysadmins,
        two_tables_are_exchanged_by_the_function_of_the_connector,
    ],
    ids=lambda conversation: conversation.__name__,
)
def test_the_fake_answers_as_the_real_one_does(conversation: Conversation, real_ckan: RealCkan):
    with Ckan() as fake:
        talks = [Talk(real_ckan), Talk(fake)]
        for talk in talks:
            conversation(talk)
    assert not fake.mistakes
    real, ours = ([(name, status, answer) for name, status, answer in talk.answers] for talk in talks)
    for number, (theirs, mine) in enumerate(zip(real, ours, strict=True), 1):
        assert not (told := list(differences(theirs, mine))), f"answer {number}, to {theirs[0]}: " + "; ".join(told)


def differences(theirs: Any, mine: Any, place: str = "") -> Iterator[str]:
    """What of an answer is not as the real one's, in words."""
    if isinstance(theirs, dict) and isinstance(mine, dict):
        for name in {**theirs, **mine}:
            yield from differences(theirs.get(name, "(nothing)"), mine.get(name, "(nothing)"), f"{place}.{name}")
    elif isinstance(theirs, list | tuple) and isinstance(mine, list | tuple) and len(theirs) == len(mine):
        for number, pair in enumerate(zip(theirs, mine, strict=True)):
            yield from differences(*pair, f"{place}[{number}]")
    elif theirs != mine or type(theirs) is not type(mine):
        yield f"{place} is {mine!r}, and should be {theirs!r}"
