"""Let held blocks go on from where they stand."""

from pipelines import blocks
from pipelines.management.verbs import VerbCommand
from pipelines.models import State


class Command(VerbCommand):
    help = "Let held blocks go on from where they stand."
    verb = staticmethod(blocks.release)
    states = (State.HELD,)
