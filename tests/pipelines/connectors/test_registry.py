"""The registry of connectors: a module in the folder is enough."""

import subprocess
import sys

import pytest

from pipelines.connectors import REGISTRY, connector_for
from pipelines.connectors.base import Connector
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
    from pipelines.connectors.base import Account

    assert "c4nary" not in repr(Account("la", "https://x", {}, {"password": "c4nary"}))
