"""What an error of the Pub/Sub API means for the stream: one table.

The code in the trailer `error-code` decides; where there is none, or one that is not known, the gRPC status does.

Source: Pub/Sub API Developer Guide, "Handle Errors".
"""

import re
from collections.abc import Callable, Mapping
from functools import partial

import grpc

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

_CODE = re.compile(r"sfdc\.platform\.eventbus\.grpc\.([a-z.]{1,100})")
_CLIENTS_WAIT_S = 120.0
_REQUESTS_WAIT_S = 60.0
_TEXT_LENGTH = 300
_FORBIDDEN, _NOT_FOUND, _WRONG = 403, 404, 400

Reaction = Callable[[str], ConnectorError]


def _refused(status: int, text: str) -> ConnectorError:
    return StreamRefused(status, (OrgProblem(code=f"PUBSUB_{status}", message=text, fields=[]),))


def _crowded(text: str) -> ConnectorError:
    return OrgThrottled(text, retry_after_s=_CLIENTS_WAIT_S)


def _slower(text: str) -> ConnectorError:
    return OrgThrottled(text, retry_after_s=_REQUESTS_WAIT_S)


def _spent(_text: str) -> ConnectorError:
    return EventsSpent()


_forbidden: Reaction = partial(_refused, _FORBIDDEN)
_not_found: Reaction = partial(_refused, _NOT_FOUND)
_wrong: Reaction = partial(_refused, _WRONG)  # a request that we should not have sent: a person must look

REACTIONS: Mapping[str, Reaction] = {
    "service.unavailable": OrgUnavailable,
    "topic.api.unavailable": OrgUnavailable,
    "schema.api.unavailable": OrgUnavailable,
    "subscription.internal.error": LinkDown,
    "service.auth.error": TokenRefused,
    "service.auth.headers.invalid": _forbidden,
    "service.auth.refresh.invalid": _wrong,
    "service.tenant.license": _forbidden,
    "service.protection.triggered": _slower,
    "service.protection.stream.limit.triggered": _slower,
    "concurrent.client.limit.exceeded": _crowded,
    "topic.not.found": _not_found,
    "topic.meta.permission": _forbidden,
    "topic.validation.empty": _wrong,
    "schema.meta.permission": _forbidden,
    "schema.validation.failed": _not_found,
    "subscription.topic.cannot.subscribe": _forbidden,
    # Too old, or of another stream: the documents know one code for both.
    "subscription.fetch.replayid.corrupted": ReplayWindowLost,
    "subscription.fetch.replayid.validation.failed": ReplayWindowLost,
    "subscription.fetch.replay.repeated": LinkDown,
    "subscription.fetch.overflow": LinkDown,
    "subscription.fetch.requested.events.invalid": _wrong,
    "subscription.fetch.topic.mismatch": _wrong,
    "subscription.fetch.request.invalid": _wrong,
    "subscription.limit.exceeded": _spent,
}
"""Code, without what all of them begin with -> the error to raise."""

_STATUS = grpc.StatusCode
_BY_STATUS: Mapping[grpc.StatusCode, Reaction] = {
    _STATUS.UNAUTHENTICATED: TokenRefused,
    _STATUS.UNAVAILABLE: LinkDown,  # gRPC's own word for a connection that broke, or cannot be made
    _STATUS.RESOURCE_EXHAUSTED: _slower,
    _STATUS.PERMISSION_DENIED: _forbidden,
    _STATUS.NOT_FOUND: _not_found,
    _STATUS.INVALID_ARGUMENT: _wrong,
    _STATUS.FAILED_PRECONDITION: _wrong,
    _STATUS.OUT_OF_RANGE: _wrong,
    _STATUS.UNIMPLEMENTED: _wrong,
}


def reaction(status: grpc.StatusCode, code: str, text: str) -> ConnectorError:
    """The error for an RPC that failed.

    Args:
        status: gRPC's status.
        code: The trailer `error-code`, empty where there is none.
        text: The status's details.
    """
    named = _CODE.fullmatch(code) or _CODE.search(text)
    known = REACTIONS.get(named[1]) if named is not None else None
    if known is None and status is _STATUS.INVALID_ARGUMENT and "replay" in text.lower():
        known = ReplayWindowLost
    told = "".join(c for c in text if c.isprintable())[:_TEXT_LENGTH] or "no details"
    return (known or _BY_STATUS.get(status, LinkDown))(f"{named[1] if named else status.name}: {told}")


def of_rpc(error: grpc.aio.AioRpcError) -> ConnectorError:
    """The error for what gRPC raised."""
    trailers = error.trailing_metadata() or ()
    code = next((str(value) for name, value in trailers if name == "error-code"), "")
    return reaction(error.code(), code, error.details() or "")
