"""Let held blocks go on from where they stand."""

from pipelines import blocks
from pipelines.management.verbs import VerbCommand
from pipelines.models import State


class Command(VerbCommand):
    help = "Let held blocks go on from where they stand; the workers take them."
    verb = staticmethod(blocks.release)
    states = (State.HELD,)
    instead = {
        State.WAITING: "Nothing to do: it runs when its time comes. To run it now: python3 manage.py run",
        State.RUNNING: "Nothing to do: it is running.",
        State.DONE: "To do it again: python3 manage.py run with --time-min and --time-max, or its page.",
        State.FAILED: "To do it again: python3 manage.py run",
    }
