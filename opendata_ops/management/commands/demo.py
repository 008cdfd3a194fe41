"""`manage.py demo`: the practice city, from nothing to blocks that move, without leaving the machine."""

from django.core.management.base import CommandParser

from opendata_ops.management.commands import up


class Command(up.Command):
    help = "Start a practice city with invented data and three log-ins; nothing leaves this machine. Ctrl-C ends it, a second start resumes."
    practice = True

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--fresh", action="store_true", help="delete the practice city's data (only that) and start over")
        parser.add_argument("--no-run", dest="run_at_once", action="store_false", help="do not ask for the main job at once")
