"""How the daemon shows itself beside the mesh: metrics, and the page."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version as distribution_version
from typing import Any

from connector.app.clock import wall_clock_ms
from connector.app.org import Org
from connector.app.supervise import Job
from connector.mesh.envelope import Envelope
from connector.metrics.metrics import Metrics
from connector.model.command import Command, CommandStatus
from connector.model.message import Message
from connector.model.times import to_iso
from connector.serve.health import Health, Observations, Troubles, overall
from connector.settings import Settings
from connector.store.readers import Readers


def metrics_of(settings: Settings, org: Org) -> Metrics:
    """The metrics of this daemon, nothing counted yet."""
    return Metrics(
        node=settings.node.name,
        version=distribution_version("salesforce-sync"),
        objects=settings.synced().keys,
        api_calls=org.budget.made,
    )


def metrics_jobs(
    settings: Settings,
    metrics: Metrics,
    readers: Readers,
    observe: Callable[[], Awaitable[Observations]],
    troubles: Troubles,
) -> Mapping[str, Job]:
    """What serves them; nothing where nobody is to listen."""
    address = settings.metrics.address
    if address is None:
        return {}
    from connector.metrics.endpoint import (  # noqa: PLC0415 - with a web server: only where it is served
        ChangeFollower,
        MetricsEndpoint,
    )

    async def seen() -> Any:
        now = await observe()
        return now, overall(now, troubles.worst())

    follower = ChangeFollower(metrics, readers)
    return {
        "metrics.follower": follower.run,
        "metrics.endpoint": MetricsEndpoint(metrics, follower, seen, address).run,
    }


def page_jobs(settings: Settings, health: Health) -> Mapping[str, Job]:
    """What serves the page; nothing where it is not enabled."""
    if not settings.web.enabled:
        return {}
    from connector.app.page import own_word, run_page  # noqa: PLC0415 - with a web server: only where it is served

    version, since = distribution_version("salesforce-sync"), to_iso(wall_clock_ms())
    told = own_word(health.document, node=settings.node.name, version=version, since=since)
    return {"web.page": partial(run_page, settings, told)}


class CountedAnswers:
    """The envelope's answers to commands, with their ends counted."""

    def __init__(self, envelope: Envelope, metrics: Metrics) -> None:
        self._envelope = envelope
        self._metrics = metrics
        self.rejected = envelope.rejected
        self.usable_reply_address = envelope.usable_reply_address

    def result(self, command: Command, dry_run: Mapping[str, Any] | None = None) -> Sequence[Message]:
        """To whoever sent it: a rejection is its end; anything else that is final is a repeat."""
        if command.status is CommandStatus.REJECTED and dry_run is None:
            self._metrics.count_command(command)
        return self._envelope.result(command, dry_run)

    def ended(self, command: Command) -> Sequence[Message]:
        """What became of a command that was tried."""
        self._metrics.count_command(command)
        return self._envelope.result(command)
