"""Follow every change of the org, and miss none: python follow.py HOST PORT.

Needs: pip install paho-mqtt. The last version that was handled stands in the file `version`; what came while this
program was away, or was lost on the way, is asked for with a `changes` query.
"""

import json
import sys
from pathlib import Path

from paho.mqtt.client import CallbackAPIVersion, Client, MQTTMessage, MQTTv5
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

ROOT = "blackroad/salesforce"
INBOX = f"{ROOT}/reply/follow-py"
DONE = Path("version")
asked = False


def handle(change: dict) -> None:
    """What this program is for; done twice for one version it must do no harm."""
    print(change["version"], change["operation"], change["object"], change["id"], *change["changed"], flush=True)


def last() -> int:
    return int(DONE.read_text()) if DONE.exists() else 0


def took(change: dict) -> None:
    if change["version"] <= last():
        return  # a repeat: delivery is at least once
    handle(change)
    DONE.write_text(str(change["version"]))


def ask(client: Client) -> None:
    global asked
    asked = True
    asking = Properties(PacketTypes.PUBLISH)
    asking.ResponseTopic = INBOX
    client.publish(f"{ROOT}/query/_all/changes", json.dumps({"since": last()}), qos=1, properties=asking)


def on_connect(client: Client, *_: object) -> None:
    client.subscribe([(f"{ROOT}/change/#", 1), (INBOX, 1)])
    ask(client)


def on_message(client: Client, _data: object, message: MQTTMessage) -> None:
    global asked
    document = json.loads(message.payload)
    if message.topic != INBOX:
        if document["data"]["version"] <= last() + 1:
            took(document["data"])
        elif not asked:
            ask(client)  # there is a hole: the answer has this change, too
    elif not document["ok"]:
        # snapshot_required: the log does not reach back so far. Read the records with `list`, then go on from there.
        sys.exit(f"{document['error']['code']}: {document['error']['message']}")
    else:
        for change in document["records"]:
            took(change)
        asked = False
        if document["records"]:
            ask(client)  # until there are none: what came meanwhile was left for this


client = Client(CallbackAPIVersion.VERSION2, "follow-py", protocol=MQTTv5)
client.on_connect, client.on_message = on_connect, on_message
client.connect(sys.argv[1], int(sys.argv[2]))
client.loop_forever()
