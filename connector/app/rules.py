"""What each way needs of the settings. Pure."""

from collections.abc import Callable
from datetime import timedelta

from connector.inbound.engine import InboundRules
from connector.inbound.poll import PollRules
from connector.inbound.position import StreamRules
from connector.inbound.repair import RepairRules
from connector.inbound.snapshot import LoadRules
from connector.model.command import ConflictPolicy
from connector.outbound.rules import OutboundRules, WriteRules
from connector.serve.query.queries import QueryRules
from connector.settings import Settings


def milliseconds(duration: timedelta) -> int:
    """A duration in whole milliseconds."""
    return duration // timedelta(milliseconds=1)


def inbound_rules(settings: Settings, org_id: Callable[[], str]) -> InboundRules:
    """Org to replica; `org_id` is asked once the stream begins."""
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
            transport=salesforce.stream,
            channel=salesforce.channel,
            org_id=org_id,
            batch_size=sync.batch_size,
            replay_all=salesforce.replay_fallback == "all",
        ),
    )


def outbound_rules(settings: Settings) -> OutboundRules:
    """Mesh to org."""
    commands = settings.commands
    return OutboundRules(
        objects={
            name: WriteRules(
                writable=o.writable,
                fields=frozenset(o.writable_fields),
                operations=frozenset(o.operations),
                external_id=o.external_id,
                on_conflict=ConflictPolicy(o.on_conflict or commands.on_conflict),
                owner=dict(o.owner),
            )
            for name, o in settings.synced().items()
        },
        max_payload_bytes=int(settings.mqtt.max_payload),
        per_minute=commands.per_minute,
        deletes_per_hour=commands.deletes_per_hour,
        backoff_max_s=settings.sync.backoff_max.total_seconds(),
        settle_ms=milliseconds(commands.settle_for),
        bulk_threshold=commands.bulk_threshold,
    )


def query_rules(settings: Settings) -> QueryRules:
    """Replica to asker."""
    return QueryRules(
        max_page=settings.query.max_page,
        timeout_s=settings.query.timeout.total_seconds(),
        max_payload_bytes=int(settings.mqtt.max_payload),
    )
