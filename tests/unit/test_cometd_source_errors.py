"""The reaction to each error of the streaming endpoint."""

from typing import Any

import pytest

from connector.errors import (
    ConnectorError,
    LinkDown,
    OrgThrottled,
    OrgUnavailable,
    ReplayWindowLost,
    StreamRefused,
)
from connector.salesforce.cometd_errors import of_status, reaction
from connector.salesforce.streaming import EventsSpent, TokenRefused

INVALID_ID = (
    "400::The replayId {37904280} you provided was invalid. Please provide a valid ID, -2 to replay all events, "
    "or -1 to replay only new events."
)


def _refused(channel: str, error: str, reason: str | None = None) -> dict[str, Any]:
    message = {"channel": f"/meta/{channel}", "successful": False, "error": error}
    return message | ({"ext": {"sfdc": {"failureReason": reason}}} if reason else {})


@pytest.mark.parametrize(
    ("channel", "error", "reason", "expected"),
    [
        ("handshake", "403::Handshake denied", "401::Authentication invalid", TokenRefused),
        ("handshake", "403::Handshake denied", "400::Unsupported API version", StreamRefused),
        ("handshake", "403::Handshake denied", "503::Server is too busy.  Please try again later.", OrgUnavailable),
        ("handshake", "403::Handshake denied", "403::Organization concurrent user limit exceeded", OrgThrottled),
        (
            "handshake",
            "403::Handshake denied",
            "403::To protect all customers from excessive use, we limit the simultaneous connections per server.",
            OrgThrottled,
        ),
        ("handshake", "403::Handshake denied", None, OrgUnavailable),
        ("connect", "401::Authentication invalid", None, TokenRefused),
        ("connect", "401::Authentication invalid", "503::Server is too busy.", OrgUnavailable),
        ("connect", "403::Unknown client", None, LinkDown),
        ("connect", "402::Unknown client", None, LinkDown),
        ("connect", "403::Organization total events daily limit exceeded", None, EventsSpent),
        ("connect", "400::Client x has established a session, but no BAYEUX_BROWSER cookie present", None, LinkDown),
        ("connect", "400::Authenticated user id does not match the session's user id", None, LinkDown),
        ("connect", "499::something new", None, LinkDown),
        ("subscribe", INVALID_ID, None, ReplayWindowLost),
        (
            "subscribe",
            "400::The replayId for channel {/data/X} wasn't found using the provided replay ID map {{}}.",
            None,
            StreamRefused,
        ),
        ("subscribe", "400::The channel you requested to subscribe to doesn't exist {/data/X}", None, StreamRefused),
        ("subscribe", "403::User not allowed to subscribe CDC without View All Data permissions", None, StreamRefused),
        ("subscribe", "403:denied_by_security_policy:create_denied", None, StreamRefused),
        ("subscribe", "403::Cannot create channel /data/X", None, StreamRefused),
        ("subscribe", "403::Subscription limit exceeded for this topic", None, StreamRefused),
        ("subscribe", "403::Organization total events daily limit exceeded", None, EventsSpent),
        ("subscribe", "403::Client has not completed handshake", None, LinkDown),
        ("subscribe", "404::Unknown channel", None, StreamRefused),
        ("subscribe", "413::Maximum Request Size Exceeded", None, LinkDown),
        ("subscribe", "403::Unknown client", None, LinkDown),
        ("subscribe", "", None, LinkDown),
    ],
)
def test_reactions(channel: str, error: str, reason: str | None, expected: type[ConnectorError]) -> None:
    """The reference's table; the failure reason wins over the error."""
    assert type(reaction(_refused(channel, error, reason))) is expected


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"error": None},
        {"error": 403},
        {"error": ["403"]},
        {"ext": "x"},
        {"ext": {"sfdc": []}},
        {"ext": {"sfdc": {"failureReason": {}}}},
    ],
)
def test_an_error_of_another_shape_is_a_broken_link(message: dict[str, Any]) -> None:
    """It never crashes."""
    assert type(reaction({"channel": "/meta/subscribe", "successful": False} | message)) is LinkDown


def test_a_refusal_is_one_printable_line() -> None:
    """It reaches the log and the operator."""
    error = reaction(_refused("subscribe", "404::no\nsuch \x1b[31mchannel " + "x" * 1000))
    assert isinstance(error, StreamRefused)
    assert error.errors[0]["message"].isprintable()
    assert len(error.errors[0]["message"]) <= 300


@pytest.mark.parametrize(
    ("status", "expected"),
    [(401, TokenRefused), (429, OrgThrottled), (500, OrgUnavailable), (503, OrgUnavailable), (404, LinkDown)],
)
def test_http_statuses(status: int, expected: type[ConnectorError]) -> None:
    """A status other than 200 comes without a Bayeux error."""
    assert type(of_status(status, None)) is expected
