"""Messages that are published together and awaited together."""

import asyncio
from collections.abc import Callable, Sequence

from connector.errors import LinkDown, PoisonError
from connector.model.message import Message

Outcome = LinkDown | PoisonError | None


class Outgoing:
    """Some messages on their way to the broker.

    Attributes:
        messages: In the order in which they leave.
        outcomes: Of each: None once it is acknowledged, or while it is not known; else why it was not.
        begun: How many have left, or never will.
        done: Done once every outcome is known; cancelled where nobody waits any more.
    """

    def __init__(self, messages: Sequence[Message], acknowledged: Callable[[int], None] | None = None) -> None:
        """`acknowledged` is called with the place of each message as its acknowledgement arrives."""
        self.messages = messages
        self.outcomes: list[Outcome] = [None] * len(messages)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.begun = 0
        self._acknowledged = acknowledged
        self._left = len(messages)
        if not messages:
            self.done.set_result(None)

    def settle(self, place: int, outcome: Outcome) -> None:
        """The outcome of one message is known; called once for each."""
        self.outcomes[place] = outcome
        if outcome is None and self._acknowledged is not None:
            self._acknowledged(place)
        self._left -= 1
        if not self._left and not self.done.done():
            self.done.set_result(None)
