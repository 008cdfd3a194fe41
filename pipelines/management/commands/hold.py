"""Keep waiting or failed blocks from running until they are released."""

from pipelines import blocks
from pipelines.management.verbs import VerbCommand
from pipelines.models import State


class Command(VerbCommand):
    help = "Keep waiting or failed blocks from running until they are released."
    verb = staticmethod(blocks.hold)
    states = (State.WAITING, State.FAILED)
    instead = {
        State.RUNNING: "Stop it with: python3 manage.py cancel; it is held then.",
        State.DONE: "Nothing to do: a block that is done does not run by itself.",
        State.HELD: "Nothing to do: it is held already.",
    }
