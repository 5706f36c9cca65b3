"""Write a record to the org and wait for what became of it: python write.py HOST PORT OBJECT OPERATION COMMAND_ID JSON.

Needs: pip install paho-mqtt. Run twice with one COMMAND_ID it writes once: the second run gets the first one's result.
"""

import json
import sys

from paho.mqtt.client import CallbackAPIVersion, Client, MQTTMessage, MQTTv5
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

ROOT = "blackroad/salesforce"
INBOX = f"{ROOT}/reply/write-py"
host, port, name, operation, command_id, payload = sys.argv[1:]
results = []


def on_connect(client: Client, *_: object) -> None:
    client.subscribe(INBOX, qos=1)


def on_subscribe(client: Client, *_: object) -> None:
    sending = Properties(PacketTypes.PUBLISH)
    sending.ResponseTopic = INBOX
    command = json.dumps({"command_id": command_id, **json.loads(payload)})
    client.publish(f"{ROOT}/command/{name}/{operation}", command, qos=1, properties=sending)


def on_message(client: Client, _data: object, message: MQTTMessage) -> None:
    result = json.loads(message.payload)
    if result["command_id"] == command_id and result["status"] != "accepted":  # accepted: on disk, not yet tried
        results.append(result)
        client.disconnect()


client = Client(CallbackAPIVersion.VERSION2, "write-py", protocol=MQTTv5)
client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
client.connect(host, int(port))
client.loop_forever()
(result,) = results
print(result["status"], result["id"], *(f"{e['code']}: {e['message']}" for e in result["errors"]))
sys.exit(0 if result["status"] == "succeeded" else 1)
