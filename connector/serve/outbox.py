"""Messages that must go out, put on disk first."""

from connector.model.message import Message
from connector.ports import Replica
from connector.serve.wake import Wake


class Outbox:
    """Stores messages for the relay to publish, and wakes it."""

    def __init__(self, replica: Replica, wake: Wake) -> None:
        self._replica = replica
        self._wake = wake

    async def send(self, message: Message) -> None:
        """Return once the message is on disk.

        Raises:
            StoreBusy, StoreFull, StoreUnusable: It is not.
        """
        await self._replica.run(lambda unit: unit.enqueue(message))
        self._wake.set()
