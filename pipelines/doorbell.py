"""What the queue may carry: plain JSON, and only the names of functions that we wrote for it.

django-q2 signs pickles and runs whatever function a message names, so whoever learns SECRET_KEY runs code on the workers.
Here a message is JSON, and one that names a function outside `pipelines.tasks.ALLOWED`, a hook or a chain is dropped where
it leaves the broker, before anything of it is imported. A `pre_execute` receiver could not do that: django-q2 has imported
the function by then, and an exception there kills the worker and leaves the message in the queue.
"""

import json
from datetime import datetime
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django_q import signing

#: A message has no other parts: `hook`, `chain` and `cached` would have functions run or results kept elsewhere.
PARTS = {"id", "name", "func", "args", "kwargs", "started", "ack_failure", "sync", "timeout", "group", "cluster"}


class PlainPayload:
    """The serializer of the queue's messages. Raises BadSignature, which django-q2 answers by dropping the message with a log line."""

    @staticmethod
    def dumps(task: Any) -> bytes:
        if not isinstance(task, dict):
            return b"null"  # the cluster's statistics, an object that only a pickle could carry; Pulse rows say how it does
        func = task.get("func")
        name = f"{func.__module__}.{func.__qualname__}" if callable(func) else func
        return json.dumps(_allowed({**task, "func": name}), cls=DjangoJSONEncoder).encode()

    @staticmethod
    def loads(data: bytes) -> dict[str, Any]:
        try:
            task = json.loads(data)
            task["started"] = datetime.fromisoformat(task["started"])
        except (ValueError, TypeError, KeyError) as error:
            raise signing.BadSignature("the queue held a message that is not one of ours") from error
        return _allowed(task)


def _allowed(task: dict[str, Any]) -> dict[str, Any]:
    from pipelines.tasks import ALLOWED  # here: tasks import models, which are not ready when apps are set up

    func = task.get("func")
    if not isinstance(func, str) or func not in ALLOWED:
        raise signing.BadSignature(f"the queue may not run {func!r}; pipelines.tasks.ALLOWED names what it may")
    if surplus := task.keys() - PARTS:
        raise signing.BadSignature(f"a message of the queue may not have {', '.join(sorted(surplus))}")
    return task


def install() -> None:
    """Make every django-q2 process of this program write and read plain payloads."""
    signing.PickleSerializer = PlainPayload
