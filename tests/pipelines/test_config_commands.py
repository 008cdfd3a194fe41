"""import_config and export_config as a person and a script meet them: exit codes, JSON, files, and the words for a refusal."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from catalog.models import AuditEntry, Dataset
from pipelines import secrets
from pipelines.models import Pipeline, Provider

pytestmark = pytest.mark.django_db

CITY = """
providers:
  la: {kind: socrata, base_url: https://data.lacity.org, secrets: {app_token: hunter2-do-not-show}}
  other: {kind: csv_file, base_url: /srv/open}
datasets:
  la-311: {title: Requests}
  pets: {title: Pets}
pipelines:
  la-311-2020: {provider: la, dataset: la-311, resource: rq3b-xjk8, key: [srnumber]}
  pets:
    {provider: la, dataset: pets, resource: jguv-t9rb, after: [{kind: notify, secret: "https://hooks.example/hunter2-do-not-show"}]}
"""


@pytest.fixture
def city(tmp_path):
    path = tmp_path / "city.yaml"
    path.write_text(CITY)
    return path


def run(*words):
    """(exit code, stdout, stderr) of a command line."""
    out, err = StringIO(), StringIO()
    code = 0
    try:
        call_command(*map(str, words), stdout=out, stderr=err)
    except SystemExit as ended:
        code = ended.code
    except CommandError as error:
        code = error.returncode
        err.write(str(error))
    return code, out.getvalue(), err.getvalue()


def test_import_says_what_it_made_and_what_to_do_next(city):
    code, out, err = run("import_config", city)
    assert (code, err) == (0, "")
    assert "create  pipeline la-311-2020" in out
    assert "Next: python3 manage.py run la-311-2020" in out
    assert AuditEntry.objects.count() == 6
    assert set(AuditEntry.objects.values_list("verb", flat=True)) == {"create"}


def test_import_for_the_second_time_has_nothing_to_do(city):
    run("import_config", city)
    code, out, _ = run("import_config", city)
    assert code == 3
    assert "0 created, 0 changed, 6 unchanged." in out
    assert AuditEntry.objects.count() == 6


def test_a_dry_run_shows_before_and_after_and_changes_nothing(city):
    run("import_config", city)
    city.write_text(CITY.replace("Pets}", "Pet licences}"))
    code, out, _ = run("import_config", city, "--dry-run")
    assert code == 0
    assert 'title: "Pets" → "Pet licences"' in out
    assert Dataset.objects.get(slug="pets").title == "Pets"


def test_json_is_one_object_on_stdout_with_what_was_created_changed_and_left(city):
    _, out, err = run("import_config", city, "--json")
    told = json.loads(out)
    assert [one["slug"] for one in told["created"]] == ["la", "other", "la-311", "pets", "la-311-2020", "pets"]
    assert (told["changed"], told["unchanged"], told["errors"]) == ([], [], [])
    assert "hunter2" not in out + err
    city.write_text(CITY.replace("Pets}", "Pet licences}"))
    told = json.loads(run("import_config", city, "--json")[1])
    assert [(one["kind"], one["slug"], one["line"], one["fields"]) for one in told["changed"]] == [
        ("dataset", "pets", 7, {"title": ["Pets", "Pet licences"]})
    ]
    assert len(told["unchanged"]) == 5


def test_a_refusal_names_file_line_field_and_next_step_in_words_and_in_json(city):
    city.write_text(CITY.replace("base_url: /srv", "base_ulr: /srv"))
    code, out, err = run("import_config", city)
    assert (code, out) == (2, "")
    assert f"{city}:4: providers.other.base_ulr: A provider has no setting 'base_ulr'.\n  Next: Did you mean base_url?" in err
    assert not Provider.objects.exists()
    code, out, _ = run("import_config", city, "--json")
    told = json.loads(out)
    assert code == 2
    assert told["created"] == []
    assert told["errors"][0] == {
        "file": str(city),
        "line": 4,
        "field": "providers.other.base_ulr",
        "message": "A provider has no setting 'base_ulr'.",
        "next_step": "Did you mean base_url?",
    }


def test_on_the_production_system_an_import_leaves_its_reason(city, settings):
    settings.ENVIRONMENT = "prod"
    code, _, err = run("import_config", city)
    assert code == 2
    assert "Next: Add --reason" in err
    assert not Provider.objects.exists()
    assert run("import_config", city, "--dry-run")[0] == 0
    assert run("import_config", city, "--reason", "new city")[0] == 0
    assert set(AuditEntry.objects.values_list("reason", flat=True)) == {"new city"}


def test_the_help_of_import_shows_an_example_that_imports(tmp_path, capsys):
    with pytest.raises(SystemExit):
        call_command("import_config", "--help")
    told = capsys.readouterr().out
    example = told[told.index("    providers:") : told.index("A pipeline may also say")]
    path = tmp_path / "example.yaml"
    path.write_text(example)
    assert run("import_config", path)[0] == 0
    assert Pipeline.objects.get().slug == "la-311-2020"


def test_export_to_a_file_and_back_changes_nothing(city, tmp_path):
    run("import_config", city)
    code, out, err = run("export_config", "--output", tmp_path / "out.yaml")
    assert (code, out) == (0, "")
    assert "la: app_token; pets: step 1 after a load" in err  # what the file cannot hold is said
    assert run("export_config")[1] == (tmp_path / "out.yaml").read_text()
    assert run("import_config", tmp_path / "out.yaml")[0] == 3


def test_export_never_writes_a_secret_nor_its_cipher(city):
    run("import_config", city)
    stored = Provider.objects.get(slug="la").secrets["app_token"]
    assert secrets.reveal(stored) == "hunter2-do-not-show"
    for words in (["export_config"], ["export_config", "--json"]):
        _, out, err = run(*words)
        assert "hunter2" not in out + err
        assert stored not in out + err


def test_export_of_named_pipelines_holds_what_they_refer_to_and_nothing_else(city):
    run("import_config", city)
    told = json.loads(run("export_config", "pets", "--json")[1])
    assert {section: list(things) for section, things in told.items()} == {
        "providers": ["la"],
        "datasets": ["pets"],
        "pipelines": ["pets"],
    }


def test_export_refuses_a_pipeline_that_is_not_there_and_suggests_one(city):
    run("import_config", city)
    code, out, err = run("export_config", "pest")
    assert (code, out) == (2, "")
    assert "pets" in err


def test_export_of_nothing_has_nothing_to_do():
    code, _, err = run("export_config")
    assert code == 3
    assert "Next: " in err


def test_an_export_that_cannot_be_written_leaves_the_old_file(city, tmp_path):
    run("import_config", city)
    code, _, err = run("export_config", "--output", tmp_path / "no-folder" / "out.yaml")
    assert code == 2
    assert "Next: " in err
    (tmp_path / "out.yaml").mkdir()
    assert run("export_config", "--output", tmp_path / "out.yaml")[0] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["city.yaml", "out.yaml"]
