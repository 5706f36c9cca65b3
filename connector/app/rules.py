"""What each way needs of the settings. Pure."""

from datetime import timedelta

from connector.inbound.engine import InboundRules
from connector.inbound.poll import PollRules
from connector.inbound.repair import RepairRules
from connector.inbound.snapshot import LoadRules
from connector.inbound.stream import StreamRules
from connector.model.command import ConflictPolicy
from connector.outbound.intake import IntakeRules
from connector.outbound.validate import WriteRules
from connector.outbound.writer import WriterRules
from connector.serve.query.queries import QueryRules
from connector.settings import Settings


def milliseconds(duration: timedelta) -> int:
    """A duration in whole milliseconds."""
    return duration // timedelta(milliseconds=1)


def inbound_rules(settings: Settings, org_id: str) -> InboundRules:
    """Org to replica."""
    salesforce, sync = settings.salesforce, settings.sync
    synced = settings.synced()
    return InboundRules(
        wanted={name: o.fields for name, o in synced.items()},
        backoff_max_s=sync.backoff_max.total_seconds(),
        load=LoadRules(bulk_threshold=sync.bulk_threshold, publish_backfill=sync.publish_backfill),
        poll=PollRules(
            intervals_s={name: settings.poll_interval(name).total_seconds() for name in synced},
            lookback_ms=milliseconds(sync.lookback),
        ),
        repair=RepairRules(verify_interval_ms=milliseconds(sync.verify_interval)),
        stream=StreamRules(
            transport=salesforce.stream, channel=salesforce.channel, org_id=org_id, batch_size=sync.batch_size
        ),
    )


def intake_rules(settings: Settings) -> IntakeRules:
    """Mesh to command table."""
    return IntakeRules(
        objects={
            name: WriteRules(
                writable=o.writable,
                fields=frozenset(o.writable_fields),
                operations=frozenset(o.operations),
                external_id=o.external_id,
            )
            for name, o in settings.synced().items()
        },
        on_conflict=ConflictPolicy(settings.commands.on_conflict),
        max_payload_bytes=int(settings.mqtt.max_payload),
    )


def query_rules(settings: Settings) -> QueryRules:
    """Replica to asker."""
    return QueryRules(
        max_page=settings.query.max_page,
        timeout_s=settings.query.timeout.total_seconds(),
        max_payload_bytes=int(settings.mqtt.max_payload),
    )


def writer_rules(settings: Settings) -> WriterRules:
    """Command table to org."""
    synced = settings.synced()
    return WriterRules(
        owner={name: dict(o.owner) for name, o in synced.items()},
        external_id={name: o.external_id for name, o in synced.items() if o.external_id},
        backoff_max_s=settings.sync.backoff_max.total_seconds(),
    )
