"""The admin without the queue's own pages.

With them a person who may see the queue could run any function as the worker: by a schedule's form, by "Resubmit", or by
opening a list whose rows are unsigned pickles. What the queue does is on our page of workers, read-only.
There is one log-in page, the console's: who is known already is told in words why the settings are closed to them.
"""

from django.contrib import admin
from django.contrib.admin.exceptions import NotRegistered
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.shortcuts import redirect
from django.urls import reverse
from django_q.models import Failure, OrmQ, Schedule, Success, Task

for model in (Failure, OrmQ, Schedule, Success, Task):
    try:
        admin.site.unregister(model)
    except NotRegistered:
        continue  # django-q2 registers some of them only for its own broker


def login(request, extra_context=None):
    if request.user.is_anonymous:
        return redirect_to_login(request.GET.get("next") or reverse("admin:index"))
    if admin.site.has_permission(request):
        return redirect("admin:index")
    raise PermissionDenied("Settings are edited by stewards. Ask a steward to put you into the group “steward”.")


admin.site.login = login
admin.site.site_header = admin.site.site_title = "Open Data Ops"
admin.site.index_title = "Configuration"
