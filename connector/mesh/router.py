"""Hands each delivery to the handler of its topic, and acknowledges it once that handler has returned.

One worker per kind of topic: order is kept within commands, within queries and so on, and a slow query holds up no
command. A handler that returns has put what matters on disk; until then the broker keeps the message.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import structlog

from connector.errors import FatalError, PoisonError, TransientError
from connector.mesh.envelope import rejected_message
from connector.mesh.topics import Incoming, Topics
from connector.model.message import Delivery, Message
from connector.ports import Inbox

log = structlog.get_logger()

Handler = Callable[[Incoming, Delivery], Awaitable[None]]
# The same for several at once, in their order: all of them are handled, or none.
ManyHandler = Callable[[Sequence[tuple[Incoming, Delivery]]], Awaitable[None]]

# Deliveries waiting per kind: a kind that is full holds up the others, which the receive maximum bounds anyway.
QUEUE_LIMIT = 200
# Of those, handled together where that is cheaper.
MOST_AT_ONCE = 100
RETRY_FIRST_S = 0.1
RETRY_MAX_S = 5.0


class Router:
    """Routes the inbox.

    A retained message, of a status aside, is never acted on; it is reported on `{root}/rejected`, but for signals,
    which are only logged. A handler's TransientError is waited out with the delivery kept in its place; PoisonError and
    any exception that is no error of ours put the message on `{root}/rejected`; FatalError ends `run`.
    """

    def __init__(
        self,
        inbox: Inbox,
        topics: Topics,
        handlers: Mapping[str, Handler],
        *,
        store: Callable[[Message], Awaitable[None]],
        rng: random.Random,
        many: Mapping[str, ManyHandler] | None = None,
    ) -> None:
        """`handlers` by kind: command, query, control, signal. `store` puts a message into the outbox.

        `many` by kind: for what is cheaper together; where it fails, its messages are handled one by one.
        """
        self._inbox = inbox
        self._topics = topics
        self._handlers = handlers
        self._many = many or {}
        self._store = store
        self._rng = rng
        self._queues: dict[str, asyncio.Queue[tuple[Incoming | None, Delivery]]] = {
            kind: asyncio.Queue(QUEUE_LIMIT) for kind in [*handlers, "refused"]
        }
        self.rejected_count = 0

    async def run(self) -> None:
        """Route until cancelled.

        Raises:
            FatalError: Of a handler.
        """
        try:
            async with asyncio.TaskGroup() as workers:
                for kind in self._queues:
                    workers.create_task(self._work(kind), name=f"router.{kind}")
                await self._distribute()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group

    async def _distribute(self) -> None:
        async for delivery in self._inbox.deliveries():
            incoming = self._topics.parse(delivery.topic)
            known = incoming is not None and incoming.kind in self._handlers
            # A state holds, retained or not; a request was meant for whoever was there then.
            acted_on = incoming is not None and (incoming.kind == "status" or not delivery.retained)
            kind = incoming.kind if incoming is not None and known and acted_on else "refused"
            await self._queues[kind].put((incoming, delivery))

    async def _work(self, kind: str) -> None:
        queue = self._queues[kind]
        while True:
            waiting = [await queue.get()]
            while kind in self._many and not queue.empty() and len(waiting) < MOST_AT_ONCE:
                waiting.append(queue.get_nowait())
            if len(waiting) == 1 or not await self._together(kind, waiting):
                for incoming, delivery in waiting:
                    await self._one(kind, incoming, delivery)

    async def _one(self, kind: str, incoming: Incoming | None, delivery: Delivery) -> None:
        if kind == "refused" or incoming is None:
            await self._patiently(kind, partial(self._refuse, incoming, delivery))
        else:
            await self._patiently(kind, partial(self._handle, incoming, delivery))
        self._inbox.acknowledge(delivery)

    async def _together(self, kind: str, waiting: Sequence[tuple[Incoming | None, Delivery]]) -> bool:
        """Handle several at once; False if one of them must be found by handling them one by one."""
        known = [(incoming, delivery) for incoming, delivery in waiting if incoming is not None]
        try:
            await self._patiently(kind, partial(self._many[kind], known))
        except FatalError:
            raise
        except Exception as error:  # noqa: BLE001 - whichever message it was meets it again alone, and is reported
            log.warning("router.batch_failed", kind=kind, messages=len(waiting), error=type(error).__name__)
            return False
        for _, delivery in waiting:
            self._inbox.acknowledge(delivery)
        return True

    async def _patiently(self, kind: str, step: Callable[[], Awaitable[None]]) -> None:
        """Repeat while the store is busy: going on would answer out of order, or not at all."""
        wait_s = RETRY_FIRST_S
        while True:
            try:
                await step()
            except TransientError as error:
                log.warning("router.handler_waits", kind=kind, wait_s=wait_s, error=str(error))
                await asyncio.sleep(wait_s * self._rng.uniform(0.5, 1.0))
                wait_s = min(wait_s * 2, RETRY_MAX_S)
            else:
                return

    async def _handle(self, incoming: Incoming, delivery: Delivery) -> None:
        try:
            await self._handlers[incoming.kind](incoming, delivery)
        except (FatalError, TransientError):
            raise
        except PoisonError as error:
            await self._reject(delivery, str(error))
        except Exception:
            # A fault of ours that this message brings out: it would do so again after every restart.
            log.exception("router.handler_failed", kind=incoming.kind, bytes=len(delivery.payload))
            await self._reject(delivery, "the connector failed to handle this message")

    async def _refuse(self, incoming: Incoming | None, delivery: Delivery) -> None:
        if incoming is None:
            await self._reject(delivery, "the topic is not one of the interface")
        elif not delivery.retained:
            await self._reject(delivery, f"nothing here takes a {incoming.kind}")
        elif incoming.kind == "signal":
            log.info("router.retained_signal_ignored")
        elif delivery.payload:  # an empty one clears what was retained
            await self._reject(delivery, "a retained message is never acted on")

    async def _reject(self, delivery: Delivery, reason: str) -> None:
        self.rejected_count += 1
        log.info("router.message_rejected", topic=delivery.topic[:200], reason=reason, bytes=len(delivery.payload))
        await self._store(rejected_message(self._topics, delivery.topic, reason, delivery.payload))
