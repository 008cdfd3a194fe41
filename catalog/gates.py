"""Who may: the two doors that every view stands behind. The groups behind the permissions are made in opendata_ops/accounts.py."""

from collections.abc import Callable
from functools import wraps

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_POST

SEE, OPERATE, KEEP_INVENTORY = "catalog.view_dataset", "pipelines.operate", "catalog.add_inventoryedition"

View = Callable[..., HttpResponse]


def needs_view(view: View) -> View:
    """For whoever may look: logged in (else to the log-in page) and in a group that sees (else PermissionDenied, in words)."""
    return _gate(view, SEE, "Your account may not look at this. Ask a steward to put you into the group “viewer”.")


def needs_operate(view: View) -> View:
    """For whoever may act: run, force, cancel, hold."""
    return _gate(view, OPERATE, "Only operators may do this. Ask a steward to put you into the group “operator”.")


def needs_inventory(view: View) -> View:
    """For whoever keeps the inventory: stewards."""
    return _gate(view, KEEP_INVENTORY, "Only stewards may do this. Ask one to put you into the group “steward”.")


def _gate(view: View, permission: str, refusal: str) -> View:
    @login_required
    @wraps(view)
    def guarded(request: HttpRequest, *args, **kwargs) -> HttpResponse:
        if not request.user.has_perm(permission):
            raise PermissionDenied(refusal)
        return view(request, *args, **kwargs)

    return guarded


def act(view: View) -> View:
    """An act of an operator: POST only, so that no link, crawler or prefetch can do it."""
    return require_POST(needs_operate(view))
