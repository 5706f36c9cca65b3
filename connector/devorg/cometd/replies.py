"""Bayeux replies as Salesforce words them."""

from collections.abc import Mapping
from typing import Any

HANDSHAKE, CONNECT, DISCONNECT = "/meta/handshake", "/meta/connect", "/meta/disconnect"
SUBSCRIBE, UNSUBSCRIBE = "/meta/subscribe", "/meta/unsubscribe"

HANDSHAKE_DENIED = "403::Handshake denied"
AUTHENTICATION_REQUIRED = "401::Request requires authentication"
AUTHENTICATION_INVALID = "401::Authentication invalid"
OTHER_USER = "400::Authenticated user id does not match the session's user id"
UNKNOWN_CLIENT = "403::Unknown client"
NO_HANDSHAKE = "403::Client has not completed handshake"
TOO_MANY_CLIENTS = "403::Organization concurrent user limit exceeded"
DAILY_LIMIT = "403::Organization total events daily limit exceeded"
NO_CHANNEL = "400::Channel name not specified"
NO_SLASH = "400::Channel name must start with a leading '/'"
NO_VERSION = "400::API version in the URI is mandatory. URI format: '/cometd/66.0'"
UNSUPPORTED_VERSION = "400::Unsupported API version. Only API versions '37.0' and above are supported."
NO_PUBLISH = "403:denied_by_security_policy:publish_denied"

EXTENSIONS: Mapping[str, Any] = {"replay": True, "payload.format": True}
"""What a handshake advertises; the second one is a switch."""

Message = dict[str, Any]


class Refused(Exception):
    """A Bayeux message that is answered with `successful: false`.

    Attributes:
        error: The reply's `error`.
        failure_reason: Its `ext.sfdc.failureReason`, if any.
        reconnect: Its `advice.reconnect`, if any.
        disconnect: A bare `/meta/disconnect` goes before it.

    Source: Streaming API Developer Guide, "Streaming API Error Codes".
    """

    def __init__(self, error: str, *, failure_reason: str = "", reconnect: str = "", disconnect: bool = False) -> None:
        super().__init__(error)
        self.error = error
        self.failure_reason = failure_reason
        self.reconnect = reconnect
        self.disconnect = disconnect


def no_cookie(client_id: str, cookie: str) -> str:
    """The client did not send back the cookie of its session."""
    return f"400::Client {client_id} has established a session, but no {cookie} cookie present"


def bad_connection_type(name: object) -> str:
    """Only long polling is offered."""
    return f"400::Invalid connection type {name}"


def unknown_channel(name: str) -> str:
    """There is no such meta channel."""
    return f"404::Unknown channel {name}"


def no_such_channel(name: str) -> str:
    """There is no channel of that name, or no object for it."""
    return f"400::The channel you requested to subscribe to doesn't exist {{{name}}}"


def invalid_replay_id(replay_id: object) -> str:
    """The id is older than the retention window, or of another stream; two blanks as in recorded answers."""
    return (
        f"400::The replayId {{{replay_id}}} you provided was invalid.  Please provide a valid ID, -2 to replay"
        " all events, or -1 to replay only new events."
    )


def replay_map_lacks(channel: str, replay: object) -> str:
    """`ext.replay` is there, but without the channel subscribed to."""
    pairs = replay.items() if isinstance(replay, dict) else ()
    shown = ", ".join(f"{key}={value}" for key, value in pairs)
    return (
        f"400::The replayId for channel {{{channel}}} wasn't found using the provided replay ID map {{{shown}}}."
        "  Please provide a replay ID map that contains the channel."
    )


def reply_to(message: Message, **members: Any) -> Message:
    """A reply with the members that every reply repeats from its message."""
    repeated: Message = {key: message[key] for key in ("id", "clientId") if key in message}
    return {"channel": message.get("channel"), **repeated, **members}


def refusal(message: Message, refused: Refused) -> Message:
    """The reply that says no."""
    members: Message = {"successful": False, "error": refused.error}
    if message.get("channel") in (SUBSCRIBE, UNSUBSCRIBE) and "subscription" in message:
        members["subscription"] = message["subscription"]
    if refused.reconnect:
        members["advice"] = {"reconnect": refused.reconnect}
        if message.get("channel") != HANDSHAKE:
            members["advice"]["interval"] = 0
    ext: Message = {"sfdc": {"failureReason": refused.failure_reason}} if refused.failure_reason else {}
    if message.get("channel") == HANDSHAKE:
        ext.update(EXTENSIONS)
        message = {key: value for key, value in message.items() if key != "clientId"}
    return reply_to(message, **members, **({"ext": ext} if ext else {}))
