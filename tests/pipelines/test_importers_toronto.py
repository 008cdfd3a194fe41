"""Toronto's dataset files: every one becomes a dataset with its pipelines, a mistake is told with its line, and an export imports to the same."""

from pathlib import Path

import pytest
from django.conf import settings

from catalog.audit import Actor
from catalog.models import Dataset
from pipelines import importers
from pipelines.importers import own, toronto_yaml
from pipelines.models import Pipeline, Provider

pytestmark = pytest.mark.django_db
ME = Actor("test")
SIX = Path(settings.BASE_DIR).parent / "shared/data/toronto_yaml"
needs_six = pytest.mark.skipif(not SIX.is_dir(), reason=f"Toronto's six files are not here: {SIX}")


def six():
    return sorted(SIX.glob("*.yaml"))


def do(paths, **options):
    return importers.apply(importers.plan(paths, **options), actor=ME)


@needs_six
def test_the_six_files_become_datasets_with_a_pipeline_for_each_resource():
    report = do(six())
    assert not report.warnings
    assert Dataset.objects.count() == 6
    assert Pipeline.objects.count() == 8
    again = importers.plan(six())
    assert not again.problems
    assert {change.verb for change in again.changes} == {"unchanged"}, [change for change in again.changes if change.verb != "unchanged"]
    assert Provider.objects.get(slug="ckan").is_active is False
    text = own.write(own.document())
    assert toronto_yaml.NAME and text
