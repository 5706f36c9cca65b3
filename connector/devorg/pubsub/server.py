"""The gRPC server of the local org, on a port of its own."""

import grpc

from connector.devorg.context import Context
from connector.devorg.pubsub.service import PubSubService

_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a port that is taken is an error
    # Clients may ask as often as they like whether the connection lives.
    ("grpc.http2.min_ping_interval_without_data_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
)


class PubSubServer:
    """Serves the Pub/Sub API without TLS, to this machine alone.

    Attributes:
        port: Where it listens, once it has started; the same at the next start.
    """

    def __init__(self, context: Context, host: str, port: int) -> None:
        self._service = PubSubService(context)
        self._host = host
        self.port = port
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: The port is taken.
        """
        server = grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers((self._service.handlers(),))
        try:
            self.port = server.add_insecure_port(f"{self._host}:{self.port}")
        except RuntimeError as error:
            raise OSError(f"port {self.port} of the Pub/Sub API cannot be listened on") from error
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """End every RPC at once and close every connection."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(None)
