"""What a Bayeux error means for the stream.

Errors are texts, `<code>:<args>:<text>`; spacing and apostrophes differ by release, so code and a distinctive part
decide. The real reason may stand in `ext.sfdc.failureReason` alone, and wins.

Source: Streaming API Developer Guide, "Streaming API Error Codes" and "Handling Streaming API Errors".
"""

from collections.abc import Mapping
from typing import Any

from connector.errors import (
    ConnectorError,
    LinkDown,
    OrgThrottled,
    OrgUnavailable,
    ReplayWindowLost,
    StreamRefused,
)
from connector.model.command import OrgProblem
from connector.salesforce.streaming import EventsSpent, TokenRefused

_BUSY_WAIT_S = 180.0
_CLIENTS_WAIT_S = 120.0
_SERVER_CONNECTIONS_WAIT_S = 60.0
_DENIED_WAIT_S = 60.0
_SESSION_LOST = ("unknown client", "cookie present", "does not match the session", "not completed handshake")
_CODE_DIGITS = 3
_TEXT_LENGTH = 300


def reaction(message: Mapping[str, Any]) -> ConnectorError:
    """The error for an unsuccessful message of a `/meta/` channel."""
    text = _reason(message)
    digits = text[:_CODE_DIGITS]
    code = int(digits) if digits.isascii() and digits.isdigit() else 0
    lower = text.lower()
    temporary = _temporary(code, lower)
    if temporary is not None:
        return temporary
    # What is left is the channel, the permission or the version: a person must change it. On a connect it is none of
    # these, because the session stood before.
    if message["channel"] == "/meta/connect" or not code:
        return LinkDown(f"the org ended the session: {text}")
    return StreamRefused(code, (OrgProblem(code=f"COMETD_{code}", message=text, fields=[]),))


def _temporary(code: int, lower: str) -> ConnectorError | None:
    if code == 503 or "server is too busy" in lower:  # noqa: PLR2004 - Service Unavailable
        return OrgUnavailable("the org's streaming servers are busy", retry_after_s=_BUSY_WAIT_S)
    if code == 401:  # noqa: PLR2004 - Unauthorized
        return TokenRefused("the streaming session's token is refused")
    if any(part in lower for part in _SESSION_LOST):
        return LinkDown("the org no longer knows the streaming session")
    if "replayid" in lower and "using the provided replay id map" not in lower:
        return ReplayWindowLost("the org no longer knows the replay id")
    if code == 413 or code >= 500:  # noqa: PLR2004 - too large, or the server's own failure
        return LinkDown(f"the org failed with {code}")
    return _limit(lower)


def _limit(lower: str) -> ConnectorError | None:
    if "concurrent user limit" in lower:
        return OrgThrottled("too many streaming clients in the org", retry_after_s=_CLIENTS_WAIT_S)
    if "daily limit" in lower:
        return EventsSpent()
    if "simultaneous connections" in lower or "excessive use" in lower:
        return OrgThrottled("too many connections to the streaming server", retry_after_s=_SERVER_CONNECTIONS_WAIT_S)
    if lower.endswith("handshake denied"):
        return OrgUnavailable("the handshake was denied without a reason", retry_after_s=_DENIED_WAIT_S)
    return None


def of_status(status: int, retry_after_s: float | None) -> ConnectorError:
    """The error for an HTTP status other than 200, which no Bayeux error comes with."""
    if status == 401:  # noqa: PLR2004 - Unauthorized
        return TokenRefused("the streaming endpoint refuses the token")
    if status == 429:  # noqa: PLR2004 - Too Many Requests
        return OrgThrottled("HTTP 429", retry_after_s=retry_after_s)
    if status >= 500:  # noqa: PLR2004 - the server's own failure
        return OrgUnavailable(f"HTTP {status}", retry_after_s=retry_after_s)
    return LinkDown(f"HTTP {status} from the streaming endpoint")


def _reason(message: Mapping[str, Any]) -> str:
    """`ext.sfdc.failureReason`, else `error`, as one printable line."""
    reason: Any = message.get("ext")
    for name in ("sfdc", "failureReason"):
        reason = reason.get(name) if isinstance(reason, Mapping) else None
    text = reason if isinstance(reason, str) and reason else message.get("error")
    return "".join(c for c in text if c.isprintable())[:_TEXT_LENGTH] if isinstance(text, str) else ""
