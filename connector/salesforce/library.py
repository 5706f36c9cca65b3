"""simple-salesforce without its Metadata API, which nothing here uses.

That part alone imports zeep, and zeep lxml: 8 MB of the daemon's memory, and half of the time that simple-salesforce
takes to be imported (0.2 s of each start). A stand-in takes its place while the package is imported for the first time;
who imports `simple_salesforce.metadata` afterwards has the real one.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import NoReturn

_METADATA = "simple_salesforce.metadata"


class SfdcMetadataApi:
    """In place of the class of that name."""

    def __init__(self, *_args: object, **_kwargs: object) -> NoReturn:
        raise NotImplementedError("the Metadata API of simple-salesforce is not loaded")


@contextmanager
def _without_metadata() -> Iterator[None]:
    if _METADATA in sys.modules:
        yield
        return
    stand_in = ModuleType(_METADATA)
    stand_in.SfdcMetadataApi = SfdcMetadataApi  # type: ignore[attr-defined]  # that is how a module gets its names
    sys.modules[_METADATA] = stand_in
    try:
        yield
    finally:
        del sys.modules[_METADATA]


with _without_metadata():
    from simple_salesforce.api import Salesforce
    from simple_salesforce.exceptions import SalesforceError

__all__ = ["Salesforce", "SalesforceError"]
