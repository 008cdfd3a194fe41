"""A new kind of provider is one file: whatever is put into the folder of connectors is known everywhere else."""

import sys

import pytest
from django.core.exceptions import ValidationError
from django.urls import reverse

from pipelines import connectors
from pipelines.connectors import REGISTRY, connector_for
from pipelines.models import Provider
from pipelines.stages import outside
from tests import world
from tests.pipelines.commanding import command
from tests.web import plain_web  # noqa: F401

TIDE_GAUGE = """
from pipelines.connectors.base import Connector, Parameter


class TideGauge(Connector):
    kind, label, can_fetch = "tide_gauge", "Tide gauge", True
    address_hint = "https://tides.example"
    parameters = (
        Parameter("station", "Station", required=True, help="The number on the pole."),
        Parameter("datum", "Datum", default="MLLW"),
        Parameter("token", "Token", secret=True),
    )

    def test(self):
        return f"Station {self.account.parameters['station']} hears {len(self.account.secrets['token'])} letters."
"""


@pytest.fixture(autouse=True)
def tide_gauge(tmp_path, monkeypatch):
    """One file more in the folder of connectors, and nothing else."""
    (tmp_path / "tide_gauge.py").write_text(TIDE_GAUGE)
    monkeypatch.setattr(connectors, "__path__", [*connectors.__path__, str(tmp_path)])
    connectors.discover()
    yield connector_for("tide_gauge")
    del REGISTRY["tide_gauge"], sys.modules["pipelines.connectors.tide_gauge"], connectors.tide_gauge


@pytest.fixture
def steward(client, db):
    client.force_login(world.build(nothing=True).steward)
    return client


def enter(steward, **more):
    values = {
        "title": "Pier", "slug": "pier", "base_url": "https://tides.example", "time_zone": "America/Chicago", "max_parallel": "2", "is_active": "on",
        "contact": "", "parameter_station": "8", "parameter_datum": "MLLW", "secret_token": "abc", **more,
    }  # fmt: skip
    return steward.post(reverse("admin:pipelines_provider_add") + "?kind=tide_gauge", values)


def test_a_new_file_is_offered_and_its_form_asks_for_what_it_declares(steward):
    assert "Tide gauge" in steward.get(reverse("admin:pipelines_provider_add")).content.decode()
    form = steward.get(reverse("admin:pipelines_provider_add"), {"kind": "tide_gauge"}).content.decode()
    assert all(words in form for words in ("Station", "The number on the pole.", 'value="MLLW"', 'type="password" name="secret_token"'))


def test_what_it_declares_is_validated_in_the_form_and_in_the_model(steward):
    assert "This field is required" in enter(steward, parameter_station="").content.decode()
    assert not Provider.objects.exists()
    stranger = Provider(slug="pier", title="Pier", kind="tide_gauge", base_url="https://tides.example", parameters={"harbour": "x"})
    with pytest.raises(ValidationError, match="tide_gauge has no 'harbour'. It knows: datum, station, token"):
        stranger.full_clean()


def test_it_is_stored_with_its_secret_sealed_and_answers_the_button(steward):
    assert enter(steward).status_code == 302
    made = Provider.objects.get()
    assert (made.kind, made.parameters) == ("tide_gauge", {"station": "8", "datum": "MLLW"})
    assert "abc" not in str(made.secrets)
    said = steward.post(reverse("admin:pipelines_provider_test", args=[made.pk]), follow=True).content.decode()
    assert "Station 8 hears 3 letters." in said
    assert outside.connector(made).test() == "Station 8 hears 3 letters."


@pytest.mark.django_db
def test_it_comes_in_and_goes_out_as_configuration(tmp_path):
    wanted = tmp_path / "pier.yaml"
    wanted.write_text(
        "providers:\n  pier:\n    title: Pier\n    kind: tide_gauge\n    base_url: https://tides.example\n    parameters:\n      station: '8'\n"
    )
    told = command("import_config", str(wanted))
    assert told.code == 0, told.err
    assert Provider.objects.get().connector_class is REGISTRY["tide_gauge"]
    assert "kind: tide_gauge" in command("export_config").out
