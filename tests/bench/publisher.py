"""The ceiling: paho publishing with QoS 1, its loop inline, and nothing else."""

import select
import time
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.e2e.watcher import ROOT

IN_FLIGHT = 500


def _connected(port: int, acknowledged: list[int]) -> Client:
    client = Client(CallbackAPIVersion.VERSION2, "bench-publisher", protocol=MQTTProtocolVersion.MQTTv5)
    client.max_inflight_messages_set(IN_FLIGHT)
    ready: list[bool] = []

    def on_connect(*_: Any) -> None:
        ready.append(True)

    def on_publish(*_: Any) -> None:
        acknowledged[0] += 1

    client.on_connect, client.on_publish = on_connect, on_publish
    client.connect("127.0.0.1", port)
    while not ready:
        _turn(client)
    return client


def round_trips_ms(port: int, count: int, payload_bytes: int) -> list[float]:
    """Of single messages, each published once the one before is acknowledged."""
    acknowledged = [0]
    client = _connected(port, acknowledged)
    taken_ms: list[float] = []
    for number in range(count):
        began_s = time.monotonic()
        client.publish(f"{ROOT}/bench", b"x" * payload_bytes, 1)
        while acknowledged[0] <= number:
            _turn(client)
        taken_ms.append((time.monotonic() - began_s) * 1000)
    client.disconnect()
    return taken_ms


def publish_rate(port: int, count: int, payload_bytes: int) -> float:
    """Messages a second, from the first publish to the last PUBACK."""
    acknowledged = [0]
    client = _connected(port, acknowledged)
    payload = b"x" * payload_bytes
    published, began_s = 0, time.monotonic()
    while acknowledged[0] < count:
        while published < count and published - acknowledged[0] < IN_FLIGHT:
            client.publish(f"{ROOT}/bench", payload, 1)
            published += 1
        _turn(client)
    took_s = time.monotonic() - began_s
    client.disconnect()
    return count / took_s


def _turn(client: Client) -> None:
    sock = client.socket()
    assert sock is not None, "the broker has hung up"
    readable, writable, _ = select.select([sock], [sock] if client.want_write() else [], [], 1.0)
    if readable:
        client.loop_read()
    if writable:
        client.loop_write()
    client.loop_misc()
