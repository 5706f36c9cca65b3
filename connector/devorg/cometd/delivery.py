"""Events on their way from the log to one session."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from connector.devorg.clock import OrgClock
from connector.devorg.cometd.payload import as_streamed
from connector.devorg.cometd.replies import DAILY_LIMIT, Refused
from connector.devorg.cometd.session import Session, Subscription
from connector.devorg.events.bus import EventBus, LoggedEvent
from connector.devorg.events.changes import EventOptions
from connector.devorg.events.channels import Channel, event_api_name
from connector.devorg.settings import OrgSettings
from connector.devorg.usage import Usage


@dataclass(frozen=True, slots=True)
class Batch:
    """Events as JSON messages in log order; `due_s` is when the next one may be delivered, if that is known."""

    messages: tuple[bytes, ...] = ()
    due_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Takes from the log what a session has not had yet."""

    bus: EventBus
    clock: OrgClock
    settings: OrgSettings
    options: EventOptions
    usage: Usage

    def take(self, session: Session) -> Batch:
        """The next events of the session, which it will not be given again.

        Raises:
            Refused: The org has delivered its events of the day.

        Source: Change Data Capture Developer Guide, "Change Data Capture Allocations".
        """
        latest = self.bus.latest_id()
        if self.settings.stream_stalled or session.seen == latest:
            return Batch()
        most = self.settings.max_events_per_response
        found = [
            (event, subscription)
            for subscription in session.subscriptions.values()
            for event in self.bus.read(subscription.channel, subscription.after, most)
        ]
        found.sort(key=lambda pair: pair[0].replay_id)
        due_ms = self.clock.now_ms() - round(self.settings.stream_delay_s * 1000)
        ready = [pair for pair in found[:most] if pair[0].logged_ms <= due_ms]
        if found and not ready:
            return Batch(due_s=(found[0][0].logged_ms - due_ms) / 1000)
        left = max(0, self.settings.delivered_event_limit - self.usage.delivered.used())
        if ready and not left:
            raise Refused(DAILY_LIMIT, failure_reason=DAILY_LIMIT, reconnect="none")
        if len(ready[:left]) == len(found) < most:
            session.seen = latest
        return Batch(self._delivered(ready[:left]))

    def _delivered(self, pairs: list[tuple[LoggedEvent, Subscription]]) -> tuple[bytes, ...]:
        messages: list[bytes] = []
        for event, subscription in pairs:
            subscription.after = event.replay_id
            messages += self._messages(event, subscription.channel)
        if messages:
            self.usage.delivered.add(len(messages))
        return tuple(messages)

    def _messages(self, event: LoggedEvent, channel: Channel) -> list[bytes]:
        """An event as it is delivered; enriched, it is one for each record, all with the same replay id."""
        place: dict[str, object] = {"replayId": event.replay_id}
        if self.options.event_uuid:
            place |= {"EventUuid": _uuid(event.replay_id), "EventApiName": event_api_name(event.entity)}
        return [
            orjson.dumps(
                {
                    "channel": channel.name,
                    "data": {"schema": event.schema_id, "payload": self._payload(payload), "event": place},
                }
            )
            for payload in self.bus.told(channel, event, gaps=self.settings.gaps_on_filtered_channels)
        ]

    def _payload(self, payload: bytes) -> orjson.Fragment:
        return orjson.Fragment(as_streamed(payload, self.options))


def array_of(parts: Iterable[bytes]) -> bytes:
    """A JSON array of what is JSON already."""
    return b"[" + b",".join(parts) + b"]"


def _uuid(replay_id: int) -> str:
    """The same for every delivery of one event."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, str(replay_id)))
