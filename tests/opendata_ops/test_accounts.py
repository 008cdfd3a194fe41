"""Three groups, who may what, and an admin that gives nobody more than that."""

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.urls import NoReverseMatch, reverse

from opendata_ops import accounts

pytestmark = pytest.mark.django_db


@pytest.fixture
def person():
    return User.objects.create_user("ada")


def may(person) -> set[str]:
    return User.objects.get(pk=person.pk).get_all_permissions()


def test_every_installation_has_the_three_groups():
    assert set(Group.objects.values_list("name", flat=True)) >= {"viewer", "operator", "steward"}


def test_a_viewer_sees_everything_of_ours_and_changes_nothing(person):
    accounts.add_to(person, "viewer")
    models = [model for app in accounts.APPS for model in apps.get_app_config(app).get_models()]
    assert len(models) >= 10
    assert may(person) == {f"{model._meta.app_label}.view_{model._meta.model_name}" for model in models}


def test_an_operator_also_runs(person):
    accounts.add_to(person, "viewer")
    seen = may(person)
    accounts.add_to(person, "operator")
    assert may(person) - seen == {"pipelines.operate"} and seen < may(person)


def test_a_steward_edits_the_configuration_and_deletes_nothing(person):
    accounts.add_to(person, "viewer")
    seen = may(person)
    accounts.add_to(person, "steward")
    nouns = [
        *(
            "catalog.{}_dataset",
            "catalog.{}_datasetcolumn",
            "catalog.{}_boundarylayer",
            "catalog.{}_inventoryedition",
            "pipelines.{}_provider",
            "pipelines.{}_pipeline",
        ),
        *("pipelines.{}_afterstep", "pipelines.{}_enrichment", "pipelines.{}_upkeepjob", "pipelines.{}_registeredoperator", "perfmet.{}_sensorwatch"),
    ]
    assert may(person) - seen == {noun.format(verb) for noun in nouns for verb in ("add", "change")}
    assert not [one for one in may(person) if "delete" in one]


def test_each_group_is_enough_by_itself():
    viewed = set(Group.objects.get(name="viewer").permissions.all())
    for role in ("operator", "steward"):
        assert viewed < set(Group.objects.get(name=role).permissions.all())


def test_only_a_steward_enters_the_admin(person):
    for role, enters in (("viewer", False), ("operator", False), ("steward", True)):
        accounts.add_to(person, role)
        assert User.objects.get(pk=person.pk).is_staff is enters


def test_a_migration_puts_the_groups_right_and_leaves_people_and_other_groups_alone(person):
    accounts.add_to(person, "viewer")
    delete = Permission.objects.get(codename="delete_dataset")
    others = Group.objects.create(name="auditors")
    others.permissions.add(delete)
    Group.objects.get(name="viewer").permissions.add(delete)
    Group.objects.get(name="operator").delete()
    call_command("migrate", verbosity=0)
    assert "catalog.delete_dataset" not in may(person) and "catalog.view_dataset" in may(person)
    assert list(others.permissions.all()) == [delete]
    assert Group.objects.get(name="operator").permissions.filter(codename="operate").exists()


@pytest.mark.parametrize(
    ("roles", "word"),
    [
        ([], "no role"),
        (["viewer"], "viewer"),
        (["operator"], "operator"),
        (["viewer", "operator"], "operator"),
        (["steward"], "steward"),
        (["viewer", "operator", "steward"], "operator and steward"),
    ],
)
def test_the_foot_of_the_page_says_what_one_is(person, roles, word, django_assert_num_queries):
    for role in roles:
        accounts.add_to(person, role)
    with django_assert_num_queries(1):
        assert accounts.role_of(person) == word


def test_a_superuser_is_the_administrator(person, django_assert_num_queries):
    person.is_superuser = True
    with django_assert_num_queries(0):
        assert accounts.role_of(person) == "administrator"


def test_the_queue_has_no_pages_in_the_admin():
    admin.autodiscover()
    assert not [model for model in admin.site._registry if model._meta.app_label == "django_q"]


@pytest.mark.parametrize("page", ["schedule_add", "schedule_changelist", "success_changelist", "failure_changelist", "ormq_changelist"])
def test_not_even_an_administrator_has_an_address_to_plant_a_schedule_or_resubmit_a_task(page):
    with pytest.raises(NoReverseMatch):
        reverse(f"admin:django_q_{page}")
