"""The AsyncAPI document: every topic as a channel, with what is sent and taken there, made of the topics and models.

Source: AsyncAPI Specification 3.0.0; AsyncAPI MQTT bindings 0.2.0.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version as distribution_version
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from connector.mesh.topics import Topics
from connector.model.objects import ObjectSpec
from connector.schemas.channels import Channel, channels
from connector.schemas.documents import Plain
from connector.schemas.messages import MESSAGES, MessageType, examples
from connector.schemas.records import object_schema

_BINDING = {"bindingVersion": "0.2.0"}
_SCHEMAS = "#/components/schemas/{model}"
_HEADERS = {
    "type": "object",
    "description": "Properties of MQTT 5. For MQTT 3.1.1: `reply_to` and `correlation` in the payload.",
    "properties": {
        "responseTopic": {"type": "string", "description": "Where the answer goes; wins over `reply_to`."},
        "correlationData": {"type": "string", "description": "Given back with the answer, byte for byte."},
    },
}


def asyncapi(topics: Topics, objects: Mapping[str, ObjectSpec]) -> dict[str, Any]:
    """The document of an installation: its topics, and the records of its objects."""
    listed = channels(topics, tuple(objects))
    payloads, models = _payloads(tuple(objects))
    records = {_record(name): _embedded(object_schema(spec)) for name, spec in objects.items()}
    return {
        "asyncapi": "3.0.0",
        "info": _info(),
        "defaultContentType": "application/json",
        "servers": {"broker": _server(topics)},
        "channels": {name: _channel(channel) for name, channel in listed.items()},
        "operations": {
            operation: document
            for name, channel in listed.items()
            for operation, document in _operations(name, channel).items()
        },
        "components": {
            "messages": {name: _message(name, message, payloads[name]) for name, message in MESSAGES.items()},
            "schemas": {**models, **records},
        },
    }


def _info() -> dict[str, Any]:
    return {
        "title": "salesforce-sync",
        "version": distribution_version("salesforce-sync"),
        "description": (
            "A replica of Salesforce records that publishes every change, takes commands that write to the org, and "
            "answers queries at no API call. The operations are those of the connector: what it sends, services "
            "receive. Everything is delivered at least once, with QoS 1. Members may be added to what is published: "
            "ignore those that you do not know.\n\n"
            "To have every record and miss no change: subscribe to the changes, ask `list` page by page, ask `changes` "
            "since the `version` of the first page until `next` is null, then go by the messages in the order of "
            "`version`, and leave out what is not newer than what you have. Where a version is missing, ask `changes` "
            "again. Where the answer is `snapshot_required`, or of another `replica`, list anew.\n\n"
            "To write once: give a command an id made of what it is for, and send it again, with the same id, until a "
            "result comes that is not `accepted`."
        ),
        "license": {"name": "MIT"},
    }


def _server(topics: Topics) -> dict[str, Any]:
    will = {"topic": topics.status, "qos": 1, "retain": True, "message": "The status `offline`, without `since`."}
    return {
        "host": "{host}:{port}",
        "protocol": "mqtt",
        "protocolVersion": "5.0",
        "description": "The mesh. MQTT 3.1.1 does as well, but for message properties.",
        "variables": {
            "host": {"default": "127.0.0.1", "description": "`mqtt.host`"},
            "port": {"default": "1883", "description": "`mqtt.port`"},
        },
        "bindings": {"mqtt": {"cleanSession": False, "keepAlive": 30, "lastWill": will, **_BINDING}},
    }


def _channel(channel: Channel) -> dict[str, Any]:
    document: dict[str, Any] = {
        "address": channel.address,
        "description": channel.description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in channel.messages},
    }
    if channel.parameters:
        document["parameters"] = {
            name: {
                "description": parameter.description,
                **({"enum": list(parameter.values)} if parameter.values else {}),
            }
            for name, parameter in channel.parameters.items()
        }
    return document


def _operations(name: str, channel: Channel) -> dict[str, dict[str, Any]]:
    found = {}
    for operation in channel.operations:
        document: dict[str, Any] = {
            "action": operation.action,
            "channel": {"$ref": f"#/channels/{name}"},
            "summary": operation.summary,
            "messages": _references(name, operation.messages or channel.messages),
            "bindings": {"mqtt": {"qos": 1, "retain": operation.retain, **_BINDING}},
        }
        if operation.reply is not None:
            document["reply"] = {
                "address": {"description": operation.reply.description, "location": operation.reply.location},
                "channel": {"$ref": f"#/channels/{operation.reply.channel}"},
            }
        found[operation.name] = document
    return found


def _references(channel: str, messages: Sequence[str]) -> list[dict[str, str]]:
    return [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in messages]


def _message(name: str, message: MessageType, payload: Mapping[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": name,
        "title": message.title,
        "contentType": message.content_type,
        "payload": payload,
        "bindings": {"mqtt": {"contentType": message.content_type, **_BINDING}},
        "examples": examples()[name],
    }
    if message.asks:
        document["headers"] = _HEADERS
        document["correlationId"] = {
            "description": "In the payload for MQTT 3.1.1: `correlation`.",
            "location": "$message.header#/correlationData",
        }
    if message.source is not None:
        document["externalDocs"] = {"url": message.source}
    return document


def _payloads(objects: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Name of a message -> schema of its payload, and what these refer to."""
    modelled: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = [
        (name, "validation", TypeAdapter(message.model)) for name, message in MESSAGES.items() if message.schema is None
    ]
    made, definitions = TypeAdapter.json_schemas(modelled, schema_generator=Plain, ref_template=_SCHEMAS)
    payloads: dict[str, Any] = {name: schema for (name, _), schema in made.items()}
    payloads |= {name: dict(message.schema) for name, message in MESSAGES.items() if message.schema is not None}
    if objects:
        payloads["record"] = {"anyOf": [{"$ref": _SCHEMAS.format(model=_record(name))} for name in objects]}
    return payloads, definitions["$defs"]


def _record(object_name: str) -> str:
    return f"{object_name}Record"


def _embedded(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name not in ("$schema", "$id")}
