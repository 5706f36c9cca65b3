"""The wire to the broker, or to the org, cut, delayed, silent: nothing is lost or doubled, and the order holds."""

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import pytest

from tests.copies import TRANSPORTS
from tests.e2e.load import People, Service, keyed
from tests.e2e.making import MakeStack
from tests.e2e.stack import Stack
from tests.e2e.waiting import until
from tests.e2e.watcher import ROOT
from tests.faults.soak.link import PlainWire

_DELAY_S = 0.05
_EDITS = 15


class Proxy:
    """A wire with an event loop and a thread of its own; use with `with`."""

    def __init__(self, host: str, port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._wire = PlainWire(host, port)

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
        """Where the daemon finds the far end."""
        return self._wire.port

    def cut(self) -> None:
        """Break the connection."""
        self._loop.call_soon_threadsafe(self._wire.cut)

    def silence(self) -> None:
        """Half-open: the connection stands, nothing passes."""
        self._loop.call_soon_threadsafe(self._wire.silence)

    def delay(self) -> None:
        """A slow far end: everything takes its time, both ways."""
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


@contextmanager
def streaming(make_stack: MakeStack, transport: str) -> Iterator[tuple[Stack, Proxy]]:
    """A running stack whose daemon reaches the stream over the wire; over CometD, the whole org."""
    stack = make_stack({"salesforce": {"stream": transport}})
    far = urlsplit(stack.told["url" if transport == "cometd" else "pubsub_url"])
    assert far.port is not None
    with Proxy("127.0.0.1", far.port) as proxy:
        near = f"http://127.0.0.1:{proxy.port}"
        if transport == "cometd":
            stack.org.set(instance_url=near)
        stack.configure({"salesforce": {"instance_url" if transport == "cometd" else "pubsub_url": near}})
        stack.start()
        yield stack, proxy
        stack.daemon.stop()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    "trouble", ["cut", pytest.param("delay", marks=pytest.mark.slow), pytest.param("silence", marks=pytest.mark.slow)]
)
def test_the_stream_in_trouble_under_load(make_stack: MakeStack, transport: str, trouble: str) -> None:
    """What people edit meanwhile comes all the same, by the stream, and replica, org and changes agree."""
    with streaming(make_stack, transport) as (stack, proxy):
        contact = stack.org.create("Contact", LastName="Before")
        stack.until_change(contact)
        with People(stack.told["url"], 6) as people:
            for _ in range(3):
                getattr(proxy, trouble)()
                _more(people)
                proxy.restore()
                _more(people)
        stack.settled()
        last = stack.org.create("Contact", LastName="After")
        assert stack.until_change(last).json["data"]["origin"] == "stream"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_killed_while_the_stream_tells(make_stack: MakeStack, transport: str) -> None:
    """SIGKILL at random instants while people edit: the stream goes on where the file says."""
    stack = make_stack({"salesforce": {"stream": transport}})
    stack.start()
    rng = random.Random(8)
    with People(stack.told["url"], 8):
        for _ in range(3):
            time.sleep(rng.uniform(0.05, 0.5))
            stack.daemon.kill()
            stack.start()
    stack.settled()
    assert "stream" in {c["origin"] for c in stack.changes()}


def _more(people: People) -> None:
    made = people.edits
    until(lambda: people.edits >= made + _EDITS)
