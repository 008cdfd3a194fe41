"""The registry of connectors: a module in the folder is enough."""

import subprocess
import sys

import pytest

from pipelines.connectors import REGISTRY, connector_for
from pipelines.connectors.base import Account, Connector, FetchRequest
from pipelines.connectors.csv_file import CsvFile
from pipelines.connectors.socrata import Socrata
from pipelines.errors import SetupError


def test_a_connector_is_found_by_its_kind():
    assert (connector_for("socrata"), connector_for("csv_file")) == (Socrata, CsvFile)


def test_an_unknown_kind_names_the_kinds_that_there_are():
    with pytest.raises(SetupError, match=r"'gopher'; the kinds are: .*csv_file.*socrata"):
        connector_for("gopher")


def test_two_connectors_may_not_share_a_kind():
    with pytest.raises(TypeError, match="two connectors say that they are 'socrata'"):
        type("Twin", (Connector,), {"kind": "socrata", "label": "Twin"})
    assert REGISTRY["socrata"] is Socrata


def test_connectors_need_neither_django_nor_models():
    code = "import sys, pipelines.connectors; sys.exit(any(name.partition('.')[0] == 'django' or name == 'pipelines.models' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_account_does_not_show_its_secrets():
    assert "c4nary" not in repr(Account("la", "https://x", {}, {"password": "c4nary"}))


@pytest.fixture
def mute():
    """A kind that can be asked how it is, and nothing else."""
    kind = type("Mute", (Connector,), {"kind": "test-mute", "label": "Mute", "test": lambda self: "It is there."})
    yield kind(Account("wall", "https://wall.example"), None)
    del REGISTRY["test-mute"]


@pytest.mark.parametrize(
    ("ask", "code", "words"),
    [
        (lambda one: one.describe("x"), "cannot-fetch", "nothing can be fetched from one"),
        (lambda one: one.count("x", FetchRequest(columns=())), "cannot-fetch", "nothing can be fetched from one"),
        (lambda one: one.fetch("x", FetchRequest(columns=()), rows=1, workdir=None, progress=None), "cannot-fetch", "nothing can be fetched"),
        (lambda one: one.preflight("x", columns=(), key=()), "cannot-publish", "nothing can be published to one"),
        (lambda one: one.upsert("x", []), "cannot-publish", "nothing can be published to one"),
        (lambda one: one.published_count("x"), "cannot-publish", "nothing can be published to one"),
        (lambda one: one.delete("x", []), "cannot-publish", "nothing can be published to one"),
        (lambda one: one.replace("x", (), None, 0), "cannot-publish", "nothing can be published to one"),
        (lambda one: one.present("x", []), "cannot-publish", "nothing can be published to one"),
    ],
)
def test_what_a_kind_cannot_do_it_refuses_in_words(mute, ask, code, words):
    with pytest.raises(SetupError, match=words) as caught:
        ask(mute)
    assert caught.value.code == code and caught.value.next_step and "wall" in caught.value.message


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        (lambda one: one.delete("x", []), "cannot-delete"),
        (lambda one: one.replace("x", (), None, 0), "cannot-replace"),
        (lambda one: one.present("x", []), "cannot-ask"),
    ],
)
def test_a_portal_that_only_takes_rows_says_what_else_it_cannot_do(ask, code):
    portal = CsvFile(Account("drop", "/srv/drop"), None)
    assert not portal.can_delete and not portal.can_replace
    with pytest.raises(SetupError, match="provider drop is of the kind 'CSV file in a folder', which cannot") as caught:
        ask(portal)
    assert caught.value.code == code and caught.value.next_step


def test_a_kind_that_cannot_be_tested_cannot_be_made():
    dumb = type("Dumb", (Connector,), {"kind": "test-dumb", "label": "Dumb"})
    del REGISTRY["test-dumb"]
    with pytest.raises(TypeError, match="abstract class Dumb"):
        dumb(Account("wall", "https://wall.example"), None)
