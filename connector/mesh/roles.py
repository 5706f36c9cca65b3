"""Who we are on the mesh: the client id, what is subscribed to, and what is told of coming and going."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from connector.mesh.envelope import mirror_message, status_message
from connector.mesh.topics import Topics
from connector.model.message import Message
from connector.settings import MqttSettings

# A change tells a record up to three times, and a reply may be a single change: what the org allows is far below.
MIRROR_MAX_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What a connection is for.

    Attributes:
        filters: Topic filters that are subscribed to.
        presence: The retained message of birth, will (without a time) and farewell.
        lasting: The broker keeps the session, and what comes for it, while we are away.
        max_payload_bytes: Longer deliveries are cut to one byte more than this.
    """

    client_id: str
    filters: tuple[str, ...]
    presence: Callable[[Literal["online", "offline"], int | None], Message]
    lasting: bool
    max_payload_bytes: int


def connector_role(settings: MqttSettings, topics: Topics, *, node: str, version: str) -> Role:
    """Takes commands, queries, control messages and signals."""
    return Role(
        client_id=settings.client_id or f"salesforce-sync-{node}",
        filters=topics.subscriptions(),
        presence=lambda state, since_ms: status_message(
            topics, state=state, node=node, version=version, since_ms=since_ms
        ),
        lasting=True,
        max_payload_bytes=int(settings.max_payload),
    )


def mirror_role(settings: MqttSettings, topics: Topics, *, node: str, version: str) -> Role:
    """Takes changes and the replies to its own queries; what it misses it asks for, so nothing has to wait for it."""
    client_id = settings.client_id or f"salesforce-sync-mirror-{node}"
    return Role(
        client_id=client_id,
        filters=(topics.changes, topics.status, topics.inbox(client_id)),
        presence=lambda state, since_ms: mirror_message(
            topics, state="offline" if state == "offline" else "waiting", node=node, version=version, since_ms=since_ms
        ),
        lasting=False,
        max_payload_bytes=MIRROR_MAX_BYTES,
    )
