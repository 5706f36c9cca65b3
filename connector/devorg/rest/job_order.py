"""What the creation of a Bulk API 2.0 job may ask for, of a query as of an ingest job.

Source: Bulk API 2.0 Developer Guide, "Create a Query Job", "Create a Job".
"""

from collections.abc import Collection
from typing import Any

from connector.devorg.errors import OrgError
from connector.devorg.rest.bulk_jobs import DELIMITERS, ENDINGS


def job_order(body: Any, operations: Collection[str], texts: Collection[str]) -> dict[str, str]:
    """Return what a job shall be, defaults filled in.

    Args:
        body: Of the request, decoded.
        operations: Those of this kind of job.
        texts: Members besides the common ones; any text will do.

    Raises:
        OrgError: 400 JSON_PARSER_ERROR, naming the first member that is wrong.
    """
    allowed = {
        "operation": tuple(operations),
        "contentType": ("CSV",),
        "columnDelimiter": tuple(DELIMITERS),
        "lineEnding": tuple(ENDINGS),
    }
    if not isinstance(body, dict):
        raise _unreadable("The job has to be a JSON object")
    order = {"contentType": "CSV", "columnDelimiter": "COMMA", "lineEnding": "LF"} | body
    for name, value in order.items():
        if name not in allowed and name not in texts:
            raise _unreadable(f'Unrecognized field "{name}"')
        if name in texts and not isinstance(value, str):
            raise _unreadable(f"Unexpected value for {name}: expected a text")
    for name, values in allowed.items():
        if order.get(name) not in values:
            raise _unreadable(f"Unexpected value for {name}: expected one of {', '.join(values)}")
    return order


def _unreadable(note: str) -> OrgError:
    return OrgError(400, "JSON_PARSER_ERROR", note)
