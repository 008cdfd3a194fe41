"""A practice city: local servers that speak the real protocols, with faults on demand. Standard library only, no Django.

from opendata_ops.sandbox import Dataset, Fault, Portal

with Portal(Dataset("abcd-1234", "Potholes", ["id", ("filled", "calendar_date")], rows, key="id")) as portal:
    portal.fail(next=[Fault(503, retry_after=1), Fault("cut")])
    ...  # read f"{portal.url}/resource/abcd-1234.csv"
    assert portal.requests[0].status == 503
"""

from .faults import KINDS, Fault
from .soda import Portal
from .tables import Column, Dataset
from .wire import Asked, LocalServer, Reply, Request

__all__ = ["KINDS", "Asked", "Column", "Dataset", "Fault", "LocalServer", "Portal", "Reply", "Request"]
