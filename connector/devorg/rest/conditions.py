"""Conditional requests: headers that make a read or a write depend on the record's state.

Source: REST API Developer Guide, "Conditional Requests". Date-times are compared at a resolution of one second;
DELETE knows no conditions; ETags exist for Account rows only.
"""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

from connector.devorg.clock import http_date_ms, stamp_ms
from connector.devorg.errors import OrgError

ETAG_OBJECT = "Account"


def etag(record: Mapping[str, Any]) -> str:
    """Return the entity tag of a record; another one after every change of its SystemModstamp."""
    digest = hashlib.sha256(f"{record['Id']} {record['SystemModstamp']}".encode()).digest()[:20]
    return f'"{base64.b64encode(digest).decode()}-gzip"'


def not_modified(headers: Mapping[str, str], record: Mapping[str, Any], *, has_etag: bool) -> bool:
    """Tell whether a read is answered 304; a malformed condition is no condition."""
    if has_etag and "If-None-Match" in headers:
        return _names(headers["If-None-Match"], etag(record))
    since = _moment(headers.get("If-Modified-Since"))
    return since is not None and stamp_ms(record["LastModifiedDate"]) <= since


def check_unchanged(headers: Mapping[str, str], record: Mapping[str, Any], *, has_etag: bool, writing: bool) -> None:
    """Check the conditions under which a call wants the record as it was.

    Raises:
        OrgError: 412: the record has changed since; 400 on a write with a malformed date.
    """
    given = headers.get("If-Unmodified-Since")
    since = _moment(given)
    if given is not None and since is None and writing:
        raise OrgError(400, "INVALID_HEADER", f"If-Unmodified-Since: not an HTTP date: {given}")
    if since is not None and stamp_ms(record["LastModifiedDate"]) > since:
        message = "The record has been modified since the date of If-Unmodified-Since"
        raise OrgError(412, "PRECONDITION_FAILED", message)
    if has_etag and "If-Match" in headers and not _names(headers["If-Match"], etag(record)):
        raise OrgError(412, "MATCH_PRECONDITION_FAILED", "The record does not match the entity tag of If-Match")


def _moment(text: str | None) -> int | None:
    try:
        return None if text is None else http_date_ms(text)
    except (ValueError, OverflowError):
        return None


def _names(header: str, tag: str) -> bool:
    listed = [part.strip().removeprefix("W/") for part in header.split(",")]
    return "*" in listed or tag in listed
