"""How the Pub/Sub API says no: a gRPC status, and a code of Salesforce's own in the trailers.

Which status goes with which code is documented for few of them; the others have the one that gRPC defines for the case.

Source: Pub/Sub API Developer Guide, "Handle Errors".
"""

import uuid
from collections.abc import Mapping
from typing import NoReturn

import grpc

PREFIX = "sfdc.platform.eventbus.grpc."

UNAVAILABLE = "service.unavailable"
AUTHENTICATION = "service.auth.error"
HEADERS = "service.auth.headers.invalid"
TOO_MANY_CLIENTS = "concurrent.client.limit.exceeded"
TOPIC_UNKNOWN = "topic.not.found"
TOPIC_EMPTY = "topic.validation.empty"
SCHEMA_INVALID = "schema.validation.failed"
REPLAY_ID_INVALID = "subscription.fetch.replayid.corrupted"
REPLAY_ID_MISSING = "subscription.fetch.replayid.validation.failed"
COUNT_INVALID = "subscription.fetch.requested.events.invalid"
TOPIC_CHANGED = "subscription.fetch.topic.mismatch"
DELIVERIES_SPENT = "subscription.limit.exceeded"
INTERNAL = "subscription.internal.error"

_STATUS = grpc.StatusCode
_STATUSES: Mapping[str, grpc.StatusCode] = {
    UNAVAILABLE: _STATUS.UNAVAILABLE,
    "topic.api.unavailable": _STATUS.UNAVAILABLE,
    "schema.api.unavailable": _STATUS.UNAVAILABLE,
    AUTHENTICATION: _STATUS.UNAUTHENTICATED,
    HEADERS: _STATUS.UNAUTHENTICATED,
    "service.auth.refresh.invalid": _STATUS.UNAUTHENTICATED,
    "service.tenant.license": _STATUS.PERMISSION_DENIED,
    "service.protection.triggered": _STATUS.RESOURCE_EXHAUSTED,
    "service.protection.stream.limit.triggered": _STATUS.RESOURCE_EXHAUSTED,
    TOO_MANY_CLIENTS: _STATUS.RESOURCE_EXHAUSTED,
    TOPIC_UNKNOWN: _STATUS.NOT_FOUND,
    "topic.meta.permission": _STATUS.PERMISSION_DENIED,
    "schema.meta.permission": _STATUS.PERMISSION_DENIED,
    "subscription.topic.cannot.subscribe": _STATUS.PERMISSION_DENIED,
    "subscription.fetch.replay.repeated": _STATUS.ABORTED,
    "subscription.fetch.overflow": _STATUS.RESOURCE_EXHAUSTED,
    DELIVERIES_SPENT: _STATUS.RESOURCE_EXHAUSTED,
    INTERNAL: _STATUS.INTERNAL,
}


class Refused(Exception):
    """An RPC that ends with an error.

    Attributes:
        code: Salesforce's code, without `PREFIX`.
        text: What is said of it.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(code)
        self.code = code
        self.text = text

    async def abort(self, context: "grpc.aio.ServicerContext[object, object]") -> NoReturn:
        """End the RPC; codes that name the request's members wrong are INVALID_ARGUMENT."""
        rpc_id = str(uuid.uuid4())
        status = _STATUSES.get(self.code, _STATUS.INVALID_ARGUMENT)
        trailers = (("error-code", f"{PREFIX}{self.code}"), ("rpc-id", rpc_id))
        await context.abort(status, f"{self.text} rpcId: {rpc_id}", trailers)
        raise AssertionError("abort does not return")
