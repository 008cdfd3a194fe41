"""The admin without the queue's own pages.

With them a person who may see the queue could run any function as the worker: by a schedule's form, by "Resubmit", or by
opening a list whose rows are unsigned pickles. What the queue does is on our page of workers, read-only.
"""

from django.contrib import admin
from django.contrib.admin.exceptions import NotRegistered
from django_q.models import Failure, OrmQ, Schedule, Success, Task

for model in (Failure, OrmQ, Schedule, Success, Task):
    try:
        admin.site.unregister(model)
    except NotRegistered:
        continue  # django-q2 registers some of them only for its own broker

admin.site.site_header = admin.site.site_title = "Open Data Ops"
admin.site.index_title = "Configuration"
