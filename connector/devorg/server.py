"""The local org put together: its parts, its HTTP server, its start and its end."""

import asyncio
import fcntl
import signal
import tempfile
from collections.abc import Callable, Generator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from aiohttp import web

from connector.devorg import cometd
from connector.devorg.admin import interface
from connector.devorg.batch import server as batch
from connector.devorg.clock import OrgClock
from connector.devorg.context import CONTEXT, Context
from connector.devorg.database import OrgDatabase
from connector.devorg.events.bus import EventBus
from connector.devorg.events.changes import EventOptions
from connector.devorg.faults import Faults
from connector.devorg.login import identity, oauth, soap
from connector.devorg.middleware import add_headers, middlewares
from connector.devorg.objects.residents import INTEGRATION_USER_ID, ORGANIZATION_ID
from connector.devorg.objects.schema import Schema
from connector.devorg.records.org import Org
from connector.devorg.rest import bulk, collections, ingest, limits, query, replication, sobjects, tooling
from connector.devorg.settings import OrgSettings
from connector.devorg.tokens import ORG_ID_META, Credentials, KeyPair, Tokens
from connector.devorg.usage import Usage

if TYPE_CHECKING:
    from connector.devorg.pubsub.server import PubSubServer

HOST = "127.0.0.1"
HOST_NAME = "localhost"
"""In URLs: aiohttp's cookie jar, which aiosfstream-ng uses, keeps no cookies of a host that is a bare address."""

DATABASE_FILE = "org.db"
LOCK_FILE = "org.lock"
MOST_BODY_BYTES = 50 * 1024 * 1024
"""Source: REST API Developer Guide; a request body has at most 50 MB."""

_LONGEST_LINE_BYTES = 65_536  # more than the org allows, so that the org and not the HTTP parser refuses
_GRACE_S = 0.05


class DevOrg:
    """A local Salesforce org on a port of this machine.

    Use it as `async with DevOrg() as org`, or call `start` and `stop`. With a directory the org is the same one at
    the next start: records, tokens, replay ids, clock. Without one it lives in a temporary directory.

    Args:
        directory: Folder of the org's own; nothing outside it is written.
        port: 0 for any free one.
        pubsub_port: Of the Pub/Sub API, likewise; None: it is not served. Needs the extra `pubsub`.
        settings: Switches and scales to start with.

    Attributes:
        url: Where it listens, for instance `http://localhost:8620`.
        ctx: Its parts.
        keys: Key pair of the JWT bearer flow.
    """

    url: str
    ctx: Context
    keys: KeyPair

    def __init__(
        self,
        directory: Path | None = None,
        port: int = 0,
        *,
        pubsub_port: int | None = None,
        settings: OrgSettings | None = None,
    ) -> None:
        self._directory = directory
        self._port = port
        self._pubsub_port = pubsub_port
        self._pubsub: PubSubServer | None = None
        self._settings = settings or OrgSettings()
        self._opened = AsyncExitStack()
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Open the org's data and listen.

        Raises:
            OSError: A port is taken, or the directory can not be written.
        ImportError: The extra `pubsub` is missing.
        """
        async with AsyncExitStack() as stack:
            directory = self._open_directory(stack)
            database = OrgDatabase(directory / DATABASE_FILE)
            stack.callback(database.close)
            self.keys = KeyPair(directory)
            self.ctx = _context(database, self._settings)
            self._runner = web.AppRunner(
                _application(self.ctx, self.keys, self.drop_connections),
                access_log=None,
                shutdown_timeout=_GRACE_S,
                max_line_size=_LONGEST_LINE_BYTES,
                max_field_size=_LONGEST_LINE_BYTES,
            )
            await self._runner.setup()
            stack.push_async_callback(self._runner.cleanup)
            if self._pubsub_port is not None:
                self._pubsub = _pubsub_server(self.ctx, self._pubsub_port)
                stack.push_async_callback(self._pubsub.stop)
            await self.listen()
            self._opened = stack.pop_all()

    async def stop(self) -> None:
        """End every request, close the data; a temporary directory goes with it."""
        await self._opened.aclose()
        self._runner = self._site = None

    async def listen(self) -> None:
        """Accept connections, on the port of the last time if there was one."""
        if self._runner is None:
            raise RuntimeError("the org is not started")
        self._site = web.TCPSite(self._runner, HOST, self._port, reuse_address=True)
        await self._site.start()
        self._port = self._runner.addresses[0][1]
        self.url = self.ctx.url = f"http://{HOST_NAME}:{self._port}"
        if self._pubsub is not None:
            await self._pubsub.start()
            self.ctx.pubsub_url = f"http://{HOST}:{self._pubsub.port}"

    async def hang_up(self) -> None:
        """Accept no connections and drop those there are, as an org that is down; `listen` ends it."""
        if self._site is not None:
            await self._site.stop()
            self._site = None
        if self._pubsub is not None:
            await self._pubsub.stop()
        self.drop_connections()

    def drop_connections(self, prefix: str = "", but: web.BaseRequest | None = None) -> int:
        """Cut connections in the middle of whatever they carry, and tell how many.

        Args:
            prefix: Only those with a request below this path; empty for all, idle ones too.
            but: The request on whose connection this was asked for.
        """
        transports = {request.transport for request in self.ctx.requests.values() if request.path.startswith(prefix)}
        if not prefix and self._runner is not None and self._runner.server is not None:
            transports |= {handler.transport for handler in self._runner.server.connections}
        transports -= {None, but.transport if but is not None else None}
        for transport in transports:
            if transport is not None:
                transport.abort()
        return len(transports)

    def _open_directory(self, stack: AsyncExitStack) -> Path:
        if self._directory is None:
            return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="devorg-")))
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        stack.enter_context(_alone_in(self._directory))
        return self._directory


@contextmanager
def _alone_in(directory: Path) -> Generator[None]:
    """Keep other orgs out of the folder: each keeps counters in memory that the file must agree with.

    Raises:
        OSError: Another org is at work in it.
    """
    with (directory / LOCK_FILE).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(error.errno, "another local org is at work in the directory", str(directory)) from error
        yield


def _pubsub_server(context: Context, port: int) -> "PubSubServer":
    from connector.devorg.pubsub.server import PubSubServer  # noqa: PLC0415 - only where it is served is the extra needed

    return PubSubServer(context, HOST, port)


def _context(database: OrgDatabase, settings: OrgSettings) -> Context:
    clock = OrgClock()
    schema = Schema(database)
    options = EventOptions()
    bus = EventBus(database, schema, clock, options)
    credentials = Credentials()
    tokens = Tokens(
        database=database,
        clock=clock,
        settings=settings,
        org_id=database.meta(ORG_ID_META) or ORGANIZATION_ID,
        default_user_id=INTEGRATION_USER_ID,
        credentials=credentials,
    )
    return Context(
        org=Org(schema, clock, database, bus),
        schema=schema,
        clock=clock,
        database=database,
        bus=bus,
        tokens=tokens,
        credentials=credentials,
        faults=Faults(),
        usage=Usage(clock),
        settings=settings,
        event_options=options,
    )


def _application(context: Context, keys: KeyPair, drop: interface.DropConnections) -> web.Application:
    app = web.Application(middlewares=middlewares(context), client_max_size=MOST_BODY_BYTES)
    app[CONTEXT] = context
    app.on_response_prepare.append(add_headers)
    login = oauth.LoginServer(context, keys)
    app.add_routes(oauth.routes(context, login))
    app.add_routes(soap.routes(context, login))
    app.add_routes(identity.routes(context))
    for module in (limits, sobjects, collections, query, tooling, replication, bulk, ingest, batch, cometd):
        app.add_routes(module.routes(context))
    app.add_routes(interface.routes(context, keys, drop))
    app.cleanup_ctx.append(ingest.worker)
    return app


async def serve(
    directory: Path | None, port: int, announce: Callable[["DevOrg"], None], *, pubsub_port: int | None = None
) -> None:
    """Run an org until the process is told to end (SIGINT, SIGTERM); `announce` is called once it answers."""
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ending.set)
    async with DevOrg(directory, port, pubsub_port=pubsub_port) as org:
        announce(org)
        await ending.wait()
