"""The start: what must be known before records are taken in, served or written, while everything else is up already.

A service that ends because its org is away, or refuses the login, is started again by its manager, and each start is
another login: the nearest way to a locked user. So the daemon stays, says in its health what is wrong, and goes on by
itself; at a later start the replica knows enough, and is served meanwhile.
"""

import asyncio
from collections.abc import Callable

from connector.app.org import Org
from connector.app.supervise import Job
from connector.errors import LoginRefused, TransientError
from connector.inbound.engine import Inbound
from connector.serve.health import Troubles

_SOURCE = "org"


class Starting:
    """One job, and a gate for those that must come after it.

    Args:
        org: Not identified yet.
        inbound: Not started yet.
        troubles: Told why it takes so long.
        use_org: Given the org's id once it is known.
    """

    def __init__(self, org: Org, inbound: Inbound, troubles: Troubles, use_org: Callable[[str], None]) -> None:
        self._org = org
        self._inbound = inbound
        self._troubles = troubles
        self._use_org = use_org
        self._over = asyncio.Event()
        self._known = False

    async def run(self) -> None:
        """Know org and objects, by the org's word or by the replica's; returns once that is so.

        Raises:
            TransientError: The org cannot be asked and the replica does not know: to be called again.
            AnotherOrg: The replica is another org's.
        """
        if self._known:
            return
        try:
            self._use_org(await self._org.identify())
            await self._inbound.start()
        except TransientError as error:
            self._troubles.report(_SOURCE, str(error), person=isinstance(error, LoginRefused))
            raise
        self._troubles.clear(_SOURCE)
        self._known = True
        self._over.set()

    def drain(self) -> None:
        """The process ends: what has not begun will not."""
        self._over.set()

    def before(self, job: Job) -> Job:
        """The job, begun once all is known; it ends at once where the process does before that."""

        async def later() -> None:
            await self._over.wait()
            if self._known:
                await job()

        return later
