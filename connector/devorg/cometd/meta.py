"""The Bayeux messages of the meta channels, but for `/meta/connect`, which waits."""

from dataclasses import dataclass
from typing import Any

from connector.devorg.cometd import replies
from connector.devorg.cometd.replies import Message, Refused
from connector.devorg.cometd.session import Session, Sessions, Subscription
from connector.devorg.context import Context
from connector.devorg.events.channels import Channel, channel_named
from connector.devorg.settings import NEWEST_VERSION, OLDEST_VERSION

NEW_EVENTS, ALL_EVENTS = -1, -2
PROTOCOL = "1.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who sent a request, as its headers and cookies tell.

    Attributes:
        version: API version of the path, empty where there is none.
        token: Access token, empty where there is none.
        browser: The cookie of the session, to be checked or to be set.
        sent_browser: The client sent that cookie.
        route: The load balancer's route, to be checked or to be set.
    """

    version: str
    token: str
    browser: str
    sent_browser: bool
    route: str


class Meta:
    """Answers the messages that need no waiting; a refusal is raised as `Refused`."""

    def __init__(self, context: Context, sessions: Sessions) -> None:
        self._context = context
        self._sessions = sessions

    def user_of(self, caller: Caller) -> str:
        """The user of the caller's token.

        Raises:
            Refused: There is no token, or it is dead.
        """
        if not caller.token:
            raise _unauthenticated(replies.AUTHENTICATION_REQUIRED)
        user_id = self._context.tokens.check(caller.token)
        if user_id is None:
            raise _unauthenticated(replies.AUTHENTICATION_INVALID)
        return user_id

    def session_of(self, message: Message, caller: Caller) -> Session:
        """The session that a message belongs to.

        Raises:
            Refused: There is none that the caller may use.

        Source: Streaming API Developer Guide, "Streaming API Error Codes" and "Clients and Cookies".
        """
        user_id = self.user_of(caller)
        client_id = message.get("clientId")
        if not client_id and message.get("channel") != replies.CONNECT:
            raise Refused(replies.NO_HANDSHAKE)
        session = self._sessions.find(client_id)
        if session is not None and session.epoch != self._context.bus.epoch:
            self._sessions.close(session)
        if session is None or not self._sessions.knows(session):
            raise Refused(replies.UNKNOWN_CLIENT, reconnect="handshake")
        if not caller.sent_browser:
            raise Refused(
                replies.no_cookie(session.client_id, self._context.settings.session_cookie), reconnect="handshake"
            )
        if session.browser != caller.browser or session.route != caller.route:
            raise Refused(replies.UNKNOWN_CLIENT, reconnect="handshake")
        if session.user_id != user_id:
            raise Refused(replies.OTHER_USER, reconnect="none")
        return session

    def handshake(self, message: Message, caller: Caller) -> Message:
        """Open a session.

        Source: Streaming API Developer Guide, "How the Client Connects".
        """
        try:
            user_id = self._admitted(caller)
        except Refused as refused:
            raise Refused(replies.HANDSHAKE_DENIED, failure_reason=refused.error, reconnect="none") from refused
        session = self._sessions.open(
            user_id=user_id, browser=caller.browser, route=caller.route, epoch=self._context.bus.epoch
        )
        reply = replies.reply_to(
            message,
            version=PROTOCOL,
            minimumVersion=PROTOCOL,
            successful=True,
            supportedConnectionTypes=["long-polling"],
            ext={k: v for k, v in replies.EXTENSIONS.items() if k == "replay" or self._context.settings.payload_format},
        )
        return reply | {"clientId": session.client_id}

    def subscribe(self, message: Message, session: Session) -> Message:
        """Subscribe to one channel, from the position that `ext.replay` names for it.

        Source: Streaming API Developer Guide, "Message Durability".
        """
        settings, usage, name = self._context.settings, self._context.usage, message.get("subscription")
        if not isinstance(name, str) or not name:
            raise Refused(replies.NO_CHANNEL)
        if not name.startswith("/"):
            raise Refused(replies.NO_SLASH)
        bus = self._context.bus
        channel = channel_named(name, self._context.schema, bus.custom_channels, bus.channel_filters)
        if channel is None:
            raise Refused(replies.no_such_channel(name))
        if usage.delivered.used() >= settings.delivered_event_limit:
            raise Refused(replies.DAILY_LIMIT)
        session.subscriptions[name] = Subscription(channel, self._position(channel, message.get("ext")))
        session.seen = -1
        return replies.reply_to(message, successful=True, subscription=name)

    def unsubscribe(self, message: Message, session: Session) -> Message:
        """Take a channel out of the session."""
        name = message.get("subscription")
        if not isinstance(name, str) or not name:
            raise Refused(replies.NO_CHANNEL)
        session.subscriptions.pop(name, None)
        return replies.reply_to(message, successful=True, subscription=name)

    def disconnect(self, message: Message, session: Session) -> Message:
        """End the session; a connect that is being held is answered."""
        self._sessions.close(session)
        self._context.bus.wake()
        return replies.reply_to(message, successful=True)

    def _admitted(self, caller: Caller) -> str:
        """The user who may open a session."""
        number, _, rest = caller.version.partition(".")
        if not caller.version:
            raise Refused(replies.NO_VERSION)
        if rest != "0" or not number.isdecimal() or not OLDEST_VERSION <= int(number) <= NEWEST_VERSION:
            raise Refused(replies.UNSUPPORTED_VERSION)
        user_id = self.user_of(caller)
        if len(self._sessions) >= self._context.settings.max_streaming_clients:
            raise Refused(replies.TOO_MANY_CLIENTS)
        return user_id

    def _position(self, channel: Channel, ext: Any) -> int:
        """The log position that a subscription starts behind."""
        bus, name = self._context.bus, channel.name
        if not isinstance(ext, dict) or "replay" not in ext:
            return bus.latest_id()
        replay = ext["replay"]
        if not isinstance(replay, dict) or replay.get(name) is None:
            raise Refused(replies.replay_map_lacks(name, replay))
        replay_id = replay[name]
        if replay_id == ALL_EVENTS:
            return bus.oldest_position()
        if replay_id == NEW_EVENTS:
            return bus.latest_id()
        if not isinstance(replay_id, int) or isinstance(replay_id, bool) or not bus.valid(replay_id):
            raise Refused(replies.invalid_replay_id(replay_id))
        if not self._context.settings.foreign_replay_ids and bus.is_foreign(channel, replay_id):
            raise Refused(replies.invalid_replay_id(replay_id))
        return replay_id


def _unauthenticated(reason: str) -> Refused:
    return Refused(reason, failure_reason=reason, reconnect="none")
