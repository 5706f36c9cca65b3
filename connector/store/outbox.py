"""Messages that wait on disk: results, signals, holes. Changes wait in the change log itself."""

from collections.abc import Sequence
from typing import Any

from connector.model.message import Message, OutboxMessage
from connector.store.changelog import ChangeLog
from connector.store.queries import load

_SQL = load("outbox")


class Outbox(ChangeLog):
    """Durable messages, each published after the changes that were there before it."""

    def enqueue(self, message: Message) -> None:
        """Publish `message` after every change that is already in the log."""
        row = (
            message.topic,
            message.payload,
            message.qos,
            message.retain,
            message.content_type,
            message.correlation,
        )
        self._db.execute(_SQL["add"], row)

    def due(self, limit: int, beyond: int = 0) -> Sequence[OutboxMessage]:
        """Oldest messages whose changes are marked as published or not above `beyond`; reading deletes nothing."""
        bindings = {"published": max(self.published_version(), beyond), "limit": limit}
        return [_message(*row) for row in self._db.execute(_SQL["due"], bindings)]

    def remove_messages(self, ids: Sequence[int]) -> None:
        """They were acknowledged by the broker."""
        self._db.executemany(_SQL["remove"], ((i,) for i in ids))

    def message_count(self) -> int:
        """Messages waiting, changes not counted."""
        return int(self._db.execute(_SQL["depth"]).get)


def _message(*row: Any) -> OutboxMessage:
    message_id, after_version, topic, payload, qos, retain, content_type, correlation = row
    message = Message(
        topic=topic,
        payload=payload,
        qos=qos,
        retain=bool(retain),
        content_type=content_type,
        correlation=correlation,
    )
    return OutboxMessage(id=message_id, after_version=after_version, message=message)
