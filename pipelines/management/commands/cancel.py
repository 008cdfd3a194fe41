"""Stop running blocks; a block that only waits is held."""

from pipelines import blocks
from pipelines.management.verbs import VerbCommand
from pipelines.models import State


class Command(VerbCommand):
    help = "Stop running blocks; a block that only waits is held."
    verb = staticmethod(blocks.cancel)
    states = (State.RUNNING, State.WAITING)
