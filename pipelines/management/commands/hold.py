"""Keep waiting or failed blocks from running until they are released."""

from pipelines import blocks
from pipelines.management.verbs import VerbCommand
from pipelines.models import State


class Command(VerbCommand):
    help = "Keep waiting or failed blocks from running until they are released."
    verb = staticmethod(blocks.hold)
    states = (State.WAITING, State.FAILED)
