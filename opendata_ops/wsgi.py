"""The door for gunicorn: `opendata_ops.wsgi:application`."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opendata_ops.settings")

application = get_wsgi_application()
