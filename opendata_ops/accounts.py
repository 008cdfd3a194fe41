"""Who may do what: three groups that every installation has. A viewer sees, an operator runs, a steward configures.

A person may be in several. Whoever needs more is a superuser; a group of another name is left alone.
"""

from django.contrib.auth.models import Group, Permission
from django.db import transaction
from django.db.models import Q

VIEWER, OPERATOR, STEWARD = "viewer", "operator", "steward"
ROLES = (VIEWER, OPERATOR, STEWARD)

APPS = ("catalog", "pipelines", "perfmet")
#: What a steward edits. Never deletes: history points there, and a pipeline can be paused.
EDITED = {
    "catalog": ("dataset", "datasetcolumn", "boundarylayer", "inventoryedition"),
    "pipelines": ("provider", "pipeline", "afterstep", "enrichment", "upkeepjob", "registeredoperator"),
    "perfmet": ("sensorwatch",),
}


def permissions_of(role: str) -> Q:
    """The permissions of a role, as a condition on Permission."""
    seen = Q(content_type__app_label__in=APPS, codename__startswith="view_")
    if role == OPERATOR:
        return seen | Q(content_type__app_label="pipelines", codename="operate")
    if role == STEWARD:
        for app, models in EDITED.items():
            seen |= Q(content_type__app_label=app, codename__in=[f"{verb}_{model}" for verb in ("add", "change") for model in models])
    return seen


def make_groups(sender, using="default", **kwargs) -> None:
    """Make the three groups, or put them right again. A receiver of post_migrate; twice is harmless."""
    if sender.label not in APPS:
        return
    with transaction.atomic(using=using):
        for role in ROLES:
            group, _ = Group.objects.using(using).get_or_create(name=role)
            group.permissions.set(Permission.objects.using(using).filter(permissions_of(role)))


def add_to(user, role: str) -> None:
    """Give `user` a role. A steward edits in the Django admin, which asks for `is_staff`."""
    user.groups.add(Group.objects.get(name=role))
    if role == STEWARD and not user.is_staff:
        user.is_staff = True
        user.save(update_fields=["is_staff"])


def role_of(user) -> str:
    """What a person is, in a word or two: "viewer", "operator and steward", "administrator", "no role"."""
    if user.is_superuser:
        return "administrator"
    held = set(user.groups.values_list("name", flat=True))
    # a viewer who is also something else is called by what he may do beyond seeing
    return " and ".join(role for role in (OPERATOR, STEWARD) if role in held) or (VIEWER if VIEWER in held else "no role")
