"""The doors to the org, opened, and the org pinned to its replica."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import structlog

from connector.app.clock import wall_clock_ms
from connector.app.mirrored import refuse_mirrors
from connector.errors import ConfigError, TransientError
from connector.ports import ChangeSource
from connector.salesforce.budget import ApiBudget
from connector.salesforce.cometd import CometdSource
from connector.salesforce.delivered import Deliveries
from connector.salesforce.login import Session
from connector.salesforce.rest import RestClient
from connector.salesforce.streaming import StreamStatus
from connector.salesforce.token_store import FileTokenStore
from connector.salesforce.warning import Warner
from connector.settings import Settings
from connector.store.database import Database

log = structlog.get_logger()

ORG_CURSOR = "org"


@dataclass(slots=True, kw_only=True)
class Org:
    """The org as the other parts see it."""

    session: Session
    budget: ApiBudget
    rest: RestClient
    deliveries: Deliveries
    database: Database
    _id: str = ""

    def id(self) -> str:
        """18-character id of the org; empty until it is identified."""
        return self._id

    async def identify(self) -> str:
        """The org's id, pinned to the replica: records and positions of two orgs must not mix.

        Every later login is held against it as well: an org that is away now may come back as another.

        Raises:
            TransientError: No login now, and the replica knows no org.
            AnotherOrg: The replica is another org's.
        """
        known = await self.database.run(lambda unit: unit.cursor(ORG_CURSOR))
        if known is not None:
            self.session.expect_org(known)
        try:
            told: str = (await self.session.token()).org_id
        except TransientError as error:
            if known is None:
                raise
            log.warning("app.org_unreachable", error=str(error))
            self._id = known
            return known
        if known is None:
            await self.database.run(lambda unit: unit.set_cursor(ORG_CURSOR, told, wall_clock_ms()))
            self.session.expect_org(told)
        self._id = told
        return told


@asynccontextmanager
async def opened_org(settings: Settings, database: Database, warner: Warner | None = None) -> AsyncIterator[Org]:
    """Open the doors, without a request; `warner` is told when the use of a limit crosses its mark.

    Raises:
        StoreUnusable: The file is a mirror's.
    """
    await database.run(refuse_mirrors)
    salesforce = settings.salesforce
    store = FileTokenStore(settings.storage.path.with_name("refresh_token.json"))
    session = Session(salesforce, settings.secrets, settings.auth_flow(), now_ms=wall_clock_ms, store=store)
    budget = ApiBudget(settings.limits, database, now_ms=wall_clock_ms, warner=warner)
    rest = RestClient(session, budget, api_version=salesforce.api_version, timeout_s=salesforce.timeout.total_seconds())
    warn_at = settings.limits.warn_at
    deliveries = Deliveries(warn_at, database, ask=rest.limits, now_ms=wall_clock_ms, warner=warner)
    async with session, budget, rest, deliveries:
        yield Org(session=session, budget=budget, rest=rest, deliveries=deliveries, database=database)


class Source(ChangeSource, Protocol):
    """The change stream, as health sees it besides."""

    @property
    def status(self) -> StreamStatus:
        """How it is now."""
        ...


def change_source(settings: Settings, org: Org, on_state: Callable[[], None]) -> Source | None:
    """The stream that the settings ask for; None if it is off.

    Raises:
        ConfigError: The libraries that it needs are not installed.
    """
    salesforce = settings.salesforce
    if salesforce.stream == "off":
        return None
    if salesforce.stream == "pubsub":
        return _pubsub_source(settings, org, on_state)
    return CometdSource(
        org.session,
        channel=salesforce.channel,
        api_version=salesforce.api_version,
        now_ms=wall_clock_ms,
        on_state=on_state,
        deliveries=org.deliveries,
    )


def _pubsub_source(settings: Settings, org: Org, on_state: Callable[[], None]) -> Source:
    try:
        from connector.salesforce.pubsub import PubSubSource  # noqa: PLC0415 - an extra, loaded where it is asked for
    except ImportError as error:
        raise ConfigError(
            f"salesforce.stream = 'pubsub': {error.name} is not installed; pip install 'salesforce-sync[pubsub]'"
        ) from error
    return PubSubSource(
        org.session,
        url=settings.salesforce.pubsub_url,
        channel=settings.salesforce.channel,
        now_ms=wall_clock_ms,
        on_state=on_state,
        deliveries=org.deliveries,
    )
