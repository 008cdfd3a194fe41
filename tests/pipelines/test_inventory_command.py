"""The inventory from the shell: what the page does, for scripts, and which edition a day gets."""

import json

import pytest

from catalog.models import AuditEntry, InventoryEdition
from tests.pipelines.commanding import command

pytestmark = pytest.mark.django_db
UNITS = "device_name,lat,lon\nlamar_mlk,30.27,-97.75\nlamar_6th,north,-97.75\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "units.csv"
    path.write_text(UNITS)
    return str(path)


def test_a_file_is_stored_and_what_was_not_taken_is_told(file):
    dry = command("inventory", "import", file, "--code", "bt", "--date", "2019-06-02", "--dry-run")
    assert dry.code == 0 and "Would be stored: bt, 2 devices, dated 2019-06-02." in dry.out and not InventoryEdition.objects.exists()
    told = command("inventory", "import", file, "--code", "bt", "--date", "2019-06-02", "--reason", "first", "--json")
    assert told.code == 0 and (told.json["verb"], told.json["dated"], told.json["devices"]) == ("create", "2019-06-02", 2)
    assert "line 3, lat: 'north' is no number" in told.err and len(told.json["notes"]) == 2
    assert AuditEntry.objects.get(kind="inventory").reason == "first"
    assert "already: nothing is changed" in command("inventory", "import", file, "--code", "bt", "--date", "2019-06-02").out


def test_another_edition_of_the_same_date_asks_for_replace(file, tmp_path):
    command("inventory", "import", file, "--code", "bt", "--date", "2019-06-02")
    other = tmp_path / "other.json"
    other.write_text(json.dumps([{"device_name": "new"}]))
    told = command("inventory", "import", str(other), "--code", "bt", "--date", "2019-06-02")
    assert told.code == 2 and "There is an edition of bt dated 2019-06-02" in told.err and "replace" in told.err
    assert command("inventory", "import", str(other), "--code", "bt", "--date", "2019-06-02", "--replace").code == 0
    assert InventoryEdition.objects.get().units == [{"device_name": "new"}]


def test_an_edition_that_is_exported_is_the_same_when_it_is_imported_again(file, tmp_path):
    command("inventory", "import", file, "--code", "bt", "--date", "2019-06-02")
    edition, out = InventoryEdition.objects.get(), tmp_path / "out.json"
    assert command("inventory", "export", "bt", "--output", str(out)).code == 0
    assert json.loads(command("inventory", "export", "bt", "--date", "2019-06-02").out) == json.loads(out.read_text())
    assert command("inventory", "export", "bt", "--output", str(out)).code == 2
    InventoryEdition.objects.all().delete()
    assert command("inventory", "import", str(out)).code == 0
    again = InventoryEdition.objects.get()
    assert (again.code, again.dated_at, again.sha256) == (edition.code, edition.dated_at, edition.sha256)
    assert command("inventory", "import", str(out), "--code", "wt").code == 2


def test_the_edition_of_a_day_is_told_or_what_to_do(file):
    command("inventory", "import", file, "--code", "bt", "--date", "2019-06-02")
    told = command("inventory", "for", "bt", "2019-06-01", "--json")
    assert told.code == 0 and told.json["dated"] == "2019-06-02"
    told = command("inventory", "for", "bt", "2019-06-02")
    assert told.code == 2 and "has no edition dated after 2019-06-02" in told.err and "Next: Upload an edition" in told.err
    assert command("inventory", "for", "bt", "soon").code == 2


def test_what_there_is_is_listed(file):
    assert command("inventory", "list").code == 3
    command("inventory", "import", file, "--code", "bt", "--date", "2019-06-02")
    assert "bt: 1 edition, the newest dated 2019-06-02 with 2 devices; used by nobody" in command("inventory", "list").out
    assert command("inventory", "list", "bt", "--json").json["editions"][0]["sha256"] == InventoryEdition.objects.get().sha256
    assert command("inventory", "list", "zz").code == 3


@pytest.mark.parametrize(
    ("words", "said"), [((), "does not say which inventory"), (("--code", "B T"), "can't be the code"), (("--code", "bt", "--date", "x"), "neither")]
)
def test_what_cannot_be_stored_is_refused_in_words(file, words, said):
    told = command("inventory", "import", file, *words)
    assert told.code == 2 and said in told.err and not InventoryEdition.objects.exists()
    assert command("inventory", "import", f"{file}.none", *words).code == 2
