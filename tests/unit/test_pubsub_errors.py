"""Every documented error of the Pub/Sub API has its reaction, and every undocumented one has one too."""

import grpc
import pytest

from connector.errors import (
    ConnectorError,
    LinkDown,
    OrgThrottled,
    OrgUnavailable,
    ReplayWindowLost,
    StreamRefused,
    TransientError,
)
from connector.salesforce.pubsub_errors import REACTIONS, of_rpc, reaction
from connector.salesforce.streaming import EventsSpent, TokenRefused

PREFIX = "sfdc.platform.eventbus.grpc."
# Section 4.6 of the protocol reference: what is documented for a subscriber, and what is to be done.
DOCUMENTED: dict[str, type[ConnectorError]] = {
    "service.unavailable": OrgUnavailable,
    "topic.api.unavailable": OrgUnavailable,
    "schema.api.unavailable": OrgUnavailable,
    "subscription.internal.error": LinkDown,
    "service.auth.error": TokenRefused,
    "service.auth.headers.invalid": StreamRefused,
    "service.auth.refresh.invalid": StreamRefused,
    "service.tenant.license": StreamRefused,
    "service.protection.triggered": OrgThrottled,
    "service.protection.stream.limit.triggered": OrgThrottled,
    "concurrent.client.limit.exceeded": OrgThrottled,
    "subscription.fetch.replayid.corrupted": ReplayWindowLost,
    "subscription.fetch.replayid.validation.failed": ReplayWindowLost,
    "subscription.fetch.replay.repeated": LinkDown,
    "subscription.limit.exceeded": EventsSpent,
    "subscription.fetch.overflow": LinkDown,
    "subscription.fetch.requested.events.invalid": StreamRefused,
    "subscription.fetch.topic.mismatch": StreamRefused,
    "subscription.fetch.request.invalid": StreamRefused,
    "subscription.topic.cannot.subscribe": StreamRefused,
    "topic.meta.permission": StreamRefused,
    "topic.not.found": StreamRefused,
    "topic.validation.empty": StreamRefused,
    "schema.meta.permission": StreamRefused,
    "schema.validation.failed": StreamRefused,
}


def test_the_table_is_that_of_the_documents() -> None:
    """No code more, none less."""
    assert REACTIONS.keys() == DOCUMENTED.keys()


@pytest.mark.parametrize("status", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNKNOWN])
@pytest.mark.parametrize(("code", "expected"), DOCUMENTED.items())
def test_the_code_decides(code: str, expected: type[ConnectorError], status: grpc.StatusCode) -> None:
    """Whatever status stands beside it, and whether it is in the trailer or in the text alone."""
    assert type(reaction(status, PREFIX + code, "no")) is expected
    assert type(reaction(status, "", f"{PREFIX}{code}: no")) is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, TokenRefused),
        (grpc.StatusCode.UNAVAILABLE, LinkDown),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, OrgThrottled),
        (grpc.StatusCode.PERMISSION_DENIED, StreamRefused),
        (grpc.StatusCode.NOT_FOUND, StreamRefused),
        (grpc.StatusCode.UNIMPLEMENTED, StreamRefused),
        (grpc.StatusCode.INTERNAL, LinkDown),
        (grpc.StatusCode.UNKNOWN, LinkDown),
        (grpc.StatusCode.CANCELLED, LinkDown),
        (grpc.StatusCode.DEADLINE_EXCEEDED, LinkDown),
    ],
)
@pytest.mark.parametrize("code", ["", PREFIX + "something.new", "something else"])
def test_without_a_known_code_the_status_does(
    status: grpc.StatusCode, code: str, expected: type[ConnectorError]
) -> None:
    """The table of codes may grow."""
    assert type(reaction(status, code, "no")) is expected


def test_a_refused_replay_id_is_known_by_its_words_too() -> None:
    """A position that is gone must end in a hole, not in a stream that is refused for ever."""
    error = reaction(grpc.StatusCode.INVALID_ARGUMENT, "", "The Replay ID validation failed.")
    assert type(error) is ReplayWindowLost
    assert type(reaction(grpc.StatusCode.INVALID_ARGUMENT, "", "The topic.")) is StreamRefused


def test_throttling_says_how_long_to_wait() -> None:
    """The daily allocation longest."""
    waits = [
        error.retry_after_s
        for code in ("service.protection.triggered", "concurrent.client.limit.exceeded", "subscription.limit.exceeded")
        if isinstance(error := reaction(grpc.StatusCode.UNKNOWN, PREFIX + code, ""), TransientError)
    ]
    assert waits == [60.0, 120.0, 900.0]


def test_what_grpc_raises_is_read_with_its_trailers() -> None:
    """And what is shown of it is one printable line."""
    trailers = grpc.aio.Metadata(("rpc-id", "4711"), ("error-code", PREFIX + "topic.not.found"))
    text = "nothing\nhere rpcId: 4711"
    error = of_rpc(grpc.aio.AioRpcError(grpc.StatusCode.INVALID_ARGUMENT, grpc.aio.Metadata(), trailers, details=text))
    assert isinstance(error, StreamRefused)
    assert error.status == 404
    assert str(error) == "topic.not.found: nothinghere rpcId: 4711"
