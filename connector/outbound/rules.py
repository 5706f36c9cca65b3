"""What of the settings concerns commands."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from connector.model.command import ConflictPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteRules:
    """What the settings allow commands to do to one object.

    Attributes:
        fields: Empty: every synced field that the org lets us write.
        operations: Names of the allowed operations.
        external_id: The object's configured external id field, or empty.
        on_conflict: For commands that do not say.
        owner: Field -> `org`, `mesh` or `shared` (the default).
    """

    writable: bool
    fields: frozenset[str]
    operations: frozenset[str]
    external_id: str
    on_conflict: ConflictPolicy = ConflictPolicy.MERGE
    owner: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundRules:
    """All of it.

    Attributes:
        objects: Object name -> what commands may do to it.
        per_minute: Commands accepted per object in a minute; 0: no limit.
        deletes_per_hour: Deletes accepted per object in an hour; 0: no limit.
        backoff_max_s: Longest wait between two tries.
        settle_ms: How long the record of a lost create without an external id is looked for before it is decided.
        parallel: Batches under way at once.
        bulk_threshold: Waiting commands of one kind from which on they go as an ingest job; 0: never.
    """

    objects: Mapping[str, WriteRules]
    max_payload_bytes: int
    per_minute: int = 0
    deletes_per_hour: int = 0
    backoff_max_s: float = 60.0
    settle_ms: int = 10 * 60 * 1000
    parallel: int = 4
    bulk_threshold: int = 0
