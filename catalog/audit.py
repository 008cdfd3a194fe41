"""The one place that writes who did what: every button, command and schedule ends here."""

from dataclasses import dataclass

from catalog.models import AuditEntry


@dataclass(frozen=True)
class Actor:
    """Who acts. `user` is a Django user or None; `name` says who it was even after the user is gone."""

    name: str
    user: object = None

    @classmethod
    def of(cls, user) -> "Actor":
        return cls(name=user.get_username(), user=user)


SCHEDULE = Actor("schedule")


def write(actor: Actor, verb: str, *, kind: str, target: str, reason: str = "", result: str = "", **details) -> AuditEntry:
    """Record one act. `details` must be plain JSON values and never holds a secret."""
    return AuditEntry.objects.create(
        user=actor.user, actor=actor.name[:150], verb=verb, kind=kind, target=target[:200], reason=reason, details=details, result=result[:300]
    )
