"""Who did what is written once; not even our own code can change it afterwards."""

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, models, transaction

from catalog import audit
from catalog.models import AuditEntry

pytestmark = pytest.mark.django_db


@pytest.fixture
def entry():
    user = User.objects.create_user("ada")
    return audit.write(audit.Actor.of(user), "force", kind="block", target="la-311 Nov 20", reason="the source was late", block=7)


def test_an_act_is_told_with_who_what_and_why(entry):
    entry.refresh_from_db()
    assert (entry.actor, entry.user.username, entry.verb, entry.target, entry.reason) == (
        "ada",
        "ada",
        "force",
        "la-311 Nov 20",
        "the source was late",
    )
    assert entry.details == {"block": 7} and entry.at is not None


@pytest.mark.parametrize(
    "tamper",
    [
        lambda entry: AuditEntry.objects.filter(pk=entry.pk).update(actor="somebody else"),
        lambda entry: AuditEntry.objects.all().delete(),
        lambda entry: entry.delete(),
        lambda entry: entry.save(),
        lambda entry: connection.cursor().execute("update catalog_auditentry set reason = ''"),
    ],
)
def test_the_database_refuses_to_change_or_delete_it(entry, tamper):
    with pytest.raises(IntegrityError, match="written once"), transaction.atomic():
        tamper(entry)
    assert AuditEntry.objects.get().actor == "ada"


def test_a_person_who_acted_cannot_be_deleted(entry):
    with pytest.raises(models.ProtectedError):
        entry.user.delete()


def test_the_schedule_acts_without_a_person():
    assert audit.write(audit.SCHEDULE, "plan", kind="pipeline", target="la-311").user is None
