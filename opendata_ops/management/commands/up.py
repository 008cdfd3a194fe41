"""`manage.py up`: the whole city in one process that Ctrl-C ends."""

import dataclasses

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from opendata_ops import supervisor
from opendata_ops.database import DatabaseUnavailable


class Command(BaseCommand):
    help = "Start database, web server, workers and planner for a real city; Ctrl-C ends them all."
    practice = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=8000, help="where the console listens (8000)")
        parser.add_argument("--workers", type=int, default=settings.WORKERS, metavar="N", help="how many blocks run at once (%(default)s)")
        parser.add_argument("--log-console", action="store_true", help="log lines of all parts here, not in var/log")
        if not self.practice:
            parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 = reachable from the network (127.0.0.1)")

    def handle(self, **options) -> None:
        names = {field.name for field in dataclasses.fields(supervisor.Options)}
        wish = supervisor.Options(practice=self.practice, **{name: value for name, value in options.items() if name in names})
        if wish.workers < 1:
            raise CommandError("--workers must be 1 or more.", returncode=2)
        try:
            code = supervisor.serve(wish, self.stdout.write)
        except (supervisor.CannotStart, DatabaseUnavailable) as error:
            raise CommandError(str(error), returncode=2) from error
        if code:
            raise SystemExit(code)
