"""The wire between daemon and broker cut, delayed, silent: nothing is lost or doubled, and the order holds."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import pytest

from tests.e2e.load import People, Service, keyed
from tests.e2e.making import MakeStack
from tests.e2e.stack import Stack
from tests.e2e.waiting import until
from tests.e2e.watcher import ROOT
from tests.faults.soak.link import Wire

_DELAY_S = 0.05
_EDITS = 15


class Proxy:
    """A wire with an event loop and a thread of its own; use with `with`."""

    def __init__(self, host: str, port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._wire = Wire(host, port)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._wire.start(), self._loop).result()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._wire.stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def port(self) -> int:
        """Where the daemon finds the broker."""
        return self._wire.port

    def cut(self) -> None:
        """Break the connection."""
        self._loop.call_soon_threadsafe(self._wire.cut)

    def silence(self) -> None:
        """Half-open: the connection stands, nothing passes."""
        self._loop.call_soon_threadsafe(self._wire.silence)

    def delay(self) -> None:
        """A slow broker: everything takes its time, both ways."""
        self._loop.call_soon_threadsafe(setattr, self._wire, "delay_s", _DELAY_S)

    def restore(self) -> None:
        """All is well again."""
        self._loop.call_soon_threadsafe(self._wire.restore)


@contextmanager
def linked(make_stack: MakeStack) -> Iterator[tuple[Stack, Proxy]]:
    """A running stack whose daemon reaches the broker over the wire."""
    stack = keyed(make_stack)
    with Proxy(stack.broker.host, stack.broker.port) as proxy:
        assert stack.daemon.stop() == 0
        stack.configure({"mqtt": {"port": proxy.port}})
        stack.start()
        yield stack, proxy
        stack.daemon.stop()


@pytest.mark.parametrize("trouble", ["cut", "delay", "silence"])
def test_a_link_in_trouble_under_load(make_stack: MakeStack, trouble: str) -> None:
    """Changes come once and in order, and every command has its one effect and its result."""
    with linked(make_stack) as (stack, proxy):
        with People(stack.told["url"], 3) as people, Service(stack) as service:
            for _ in range(3):
                getattr(proxy, trouble)()
                _more(people)
                if trouble == "silence":
                    stack.daemon.until_logged("mesh.disconnected")
                proxy.restore()
                _more(people)
        service.check()
        stack.until_equal()
        until(lambda: not stack.replica.rows("SELECT 1 FROM change WHERE published_at IS NULL"))
        stack.folded()
        first: dict[int, int] = {}
        for at, change in enumerate(stack.watcher.messages(f"{ROOT}/change/#")):
            first.setdefault(change.json["data"]["version"], at)
        assert list(first) == sorted(first)
        lost = bool(stack.daemon.events("mesh.disconnected"))
        assert lost == (trouble != "delay")


def _more(people: People) -> None:
    made = people.edits
    until(lambda: people.edits >= made + _EDITS)
