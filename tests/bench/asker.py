"""A program that reads: `python -m tests.bench.asker FILE SETTINGS|HOST:PORT`; its times as JSON, in milliseconds.

Before each question the same is asked of the file itself, of another record: a bare statement on a connection of its
own, and where questions go over MQTT also two messages through the broker, as a question and its answer are. What the
machine does to these, at the same moment, it does to the product.
"""

import json
import random
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import apsw
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from connector.client import SFSync
from tests.bench.contacts import some_addresses, some_id, some_words

ASKED = {"get": 2000, "where": 500, "text": 500}
_PAGE = 20
_BARE = {
    "get": "SELECT * FROM contact WHERE Id = ?",
    "where": "SELECT * FROM contact WHERE _deleted_at IS NULL AND Email IN (?, ?, ?) ORDER BY Id LIMIT 20",
    "text": "SELECT contact.* FROM contact_search JOIN contact ON contact.rowid = contact_search.rowid "
    "WHERE contact_search MATCH ? AND _deleted_at IS NULL LIMIT 20",
}

Ask = Callable[[], object]


def main(file: str, where: str) -> None:
    """Ask everything, one after the other."""
    rng = random.Random(2)
    with ExitStack() as opened:
        bare = opened.enter_context(apsw.Connection(file, flags=apsw.SQLITE_OPEN_READONLY))
        local = Path(where).is_file()
        sync = opened.enter_context(SFSync(where) if local else SFSync(remote=where))
        there_and_back = (lambda: None) if local else opened.enter_context(_echo(where))
        asks = _asks(sync, rng)
        floors = _floors(bare, rng, there_and_back)
        times: dict[str, dict[str, list[float]]] = {}
        for name, ask in asks.items():
            ask()  # opens what is opened once
            pairs = [(_taken_ms(floors[name]), _taken_ms(ask)) for _ in range(ASKED[name])]
            times[name] = {"bare": [pair[0] for pair in pairs], "asked": [pair[1] for pair in pairs]}
    sys.stdout.write(json.dumps(times))


def _asks(sync: SFSync, rng: random.Random) -> dict[str, Ask]:
    contacts = sync.contacts

    def get() -> None:
        assert contacts.get(some_id(rng)) is not None, "what is there was not found"

    def text() -> None:
        found = list(contacts.search(some_words(rng), limit=_PAGE))
        assert found, "what is there was not found"

    return {
        "get": get,
        "where": lambda: list(contacts.search(where={"email": {"in": some_addresses(rng)}}, limit=_PAGE)),
        "text": text,
    }


def _floors(bare: apsw.Connection, rng: random.Random, there_and_back: Ask) -> dict[str, Ask]:
    bindings: dict[str, Callable[[], tuple[str, ...]]] = {
        "get": lambda: (some_id(rng),),
        "where": lambda: tuple(some_addresses(rng)),
        "text": lambda: (" ".join(f'"{word}"*' for word in some_words(rng).split()),),
    }

    def floor(name: str) -> Ask:
        def ask() -> None:
            there_and_back()
            bare.execute(_BARE[name], bindings[name]()).fetchall()

        return ask

    return {name: floor(name) for name in _BARE}


@contextmanager
def _echo(address: str) -> Iterator[Ask]:
    """Two messages, one after the other, of QoS 1, through the broker to whoever sent them."""
    host, _, port = address.partition(":")
    topic, came = f"bench/{uuid.uuid4().hex}", threading.Semaphore(0)
    client = Client(CallbackAPIVersion.VERSION2)
    client.on_message = lambda *_: came.release()
    client.on_subscribe = lambda *_: came.release()
    client.on_socket_open = _send_at_once
    client.connect(host, int(port))
    client.loop_start()
    client.subscribe(topic, 1)

    def once() -> None:
        client.publish(topic, b"x" * 300, 1)
        assert came.acquire(timeout=10), "the broker does not answer"

    def twice() -> None:
        once()
        once()

    try:
        assert came.acquire(timeout=10), "the broker does not answer"
        yield twice
    finally:
        client.disconnect()
        client.loop_stop()


def _send_at_once(_client: Client, _data: object, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _taken_ms(ask: Ask) -> float:
    began_s = time.perf_counter()
    ask()
    return (time.perf_counter() - began_s) * 1000


if __name__ == "__main__":
    main(*sys.argv[1:])
