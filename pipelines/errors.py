"""Every way a stage may fail, and who acts on it.

PipelineError
├── TransientError      try again: the block waits and is re-run, later if `retry_after` says so
│   └── NotReady        nothing is wrong: the source says that the window is not complete yet
└── PermanentError      trying again cannot help: a person must change something
    ├── SetupError      the configuration, a credential or a permission is wrong
    ├── DataError       what arrived is not what was promised
    └── NoService       nothing is wrong: the source says that it had nothing to do with the window
        └── NeverCame   something is: what the window is made of did not come, and is no longer waited for
LeaseLost               another worker holds the block now: this one must stop and write nothing

Stages and connectors raise these and never catch them; `runner.py` alone decides what happens next.
"""


class PipelineError(Exception):
    """A failure told in a sentence, with what a person can do about it.

    `code` is a short stable word for filters and tests ("http-503", "row-identifier-missing");
    `next_step` is one imperative sentence, or empty when waiting is enough.
    """

    def __init__(self, message: str, *, code: str = "", next_step: str = ""):
        super().__init__(message)
        self.message = message
        self.code = code or type(self).__name__
        self.next_step = next_step


class TransientError(PipelineError):
    """The outside world failed in a way that usually passes. `retry_after` is in seconds, or None for our own back-off."""

    def __init__(self, message: str, *, retry_after: float | None = None, code: str = "", next_step: str = ""):
        super().__init__(message, code=code, next_step=next_step)
        self.retry_after = retry_after


class NotReady(TransientError):
    """The source says that the window is not complete yet: a waiting state with a reason, not a failure."""


class PermanentError(PipelineError):
    """Trying again cannot help."""


class SetupError(PermanentError):
    """A setting, an address, a credential or a permission must be changed by a person."""


class DataError(PermanentError):
    """What arrived breaks its own promise: wrong columns, wrong counts, not the format it claims."""


class NoService(PermanentError):
    """The source says, long after the window, that it did not operate then: an end without rows, which extract makes of it."""


class NeverCame(NoService):
    """What a window is made of is not at the source, long after it was due: an end without rows, which a person must look at."""


class LeaseLost(Exception):
    """The lease of this run is gone; its successor owns the block."""
