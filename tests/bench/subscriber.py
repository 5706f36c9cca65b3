"""A service on the mesh that notes when each change arrives: `python -m tests.bench.subscriber --port N --count N`.

A plain paho client, its loop inline, QoS 1. Prints one JSON line once it is subscribed and one when all have come:
the times, by the machine's monotonic clock, at which changes arrived.
"""

import argparse
import json
import time
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.e2e.watcher import ROOT


def main() -> None:
    """Receive and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--count", type=int, required=True, help="end after so many changes")
    given = parser.parse_args()
    times: list[float] = []
    size = [0]
    client = Client(CallbackAPIVersion.VERSION2, "bench-subscriber", protocol=MQTTProtocolVersion.MQTTv5)

    def take(_client: Client, _data: Any, message: MQTTMessage) -> None:
        times.append(time.monotonic())
        size[0] += len(message.payload)
        if len(times) == given.count:
            client.disconnect()

    client.on_message = take
    client.on_subscribe = lambda *_: print(json.dumps("subscribed"), flush=True)
    client.connect("127.0.0.1", given.port)
    client.subscribe(f"{ROOT}/change/#", 1)
    client.loop_forever()
    print(json.dumps({"times": times, "bytes": size[0]}), flush=True)


if __name__ == "__main__":
    main()
