"""Stop running blocks; a block that only waits is held."""

from pipelines import blocks
from pipelines.management.verbs import VerbCommand
from pipelines.models import State


class Command(VerbCommand):
    help = "Stop running blocks; a block that only waits is held. Let them go on with release."
    verb = staticmethod(blocks.cancel)
    states = (State.RUNNING, State.WAITING)
    instead = {
        State.RUNNING: "Wait some seconds, and look with: python3 manage.py status",
        State.DONE: "Nothing to do: it is over.",
        State.FAILED: "Nothing to do: it has stopped by itself. To keep it from being run again: python3 manage.py hold",
        State.HELD: "Nothing to do: it is stopped. Let it go on with: python3 manage.py release",
    }
