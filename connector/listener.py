"""An HTTP server on one address: a bounded number of connections, idle ones ended, and an end that waits for nobody."""

import asyncio
from collections.abc import Callable

from aiohttp import web

from connector.errors import TransientError

MAX_CONNECTIONS = 64
KEEP_ALIVE_S = 15.0
_SHUTDOWN_S = 0.5


async def serve(app: web.Application, address: tuple[str, int], *, setting: str, listening: Callable[[], None]) -> None:
    """Serve until cancelled; `listening` is called once connections are taken.

    Args:
        app: What answers; its handlers are cancelled when their client goes.
        address: Host and port.
        setting: The key that named the address, for the error.
        listening: Called with nothing.

    Raises:
        TransientError: The address cannot be listened on now.
    """
    runner = web.AppRunner(
        app,
        access_log=None,
        keepalive_timeout=KEEP_ALIVE_S,
        shutdown_timeout=_SHUTDOWN_S,
        handler_cancellation=True,
    )
    await runner.setup()
    try:
        server = await _bound(runner, address, setting)
        try:
            listening()
            await asyncio.Event().wait()
        finally:
            server.close()
    finally:
        await runner.cleanup()


async def _bound(runner: web.AppRunner, address: tuple[str, int], setting: str) -> asyncio.Server:
    http, (host, port) = runner.server, address
    assert http is not None, "the runner has been set up"  # noqa: S101 - aiohttp's type is wider than what it does

    def connection() -> asyncio.BaseProtocol:
        # A descriptor more or less decides here, so whoever is too many is let go at once.
        return http() if len(http.connections) < MAX_CONNECTIONS else _Turned()

    try:
        return await asyncio.get_running_loop().create_server(connection, host, port)
    except OSError as error:
        raise TransientError(f"{setting} = {host}:{port} cannot be listened on: {error.strerror or error}") from error


class _Turned(asyncio.Protocol):
    """Too many are here: go."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hang up."""
        transport.close()
