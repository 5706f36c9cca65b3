"""schemas/asyncapi.yaml: every topic, every message, and examples that are what they are examples of."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from connector.mesh.topics import Topics
from connector.model.ids import RecordId
from connector.model.objects import object_spec
from connector.schemas import DOCUMENTS, asyncapi
from connector.schemas.messages import MESSAGES
from tests.fakes import real_describe

TOPICS = Topics()
DOCUMENT = asyncapi(TOPICS, {})


def resolved(reference: str) -> Any:
    """What `#/a/b` points at."""
    found: Any = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


def references(part: object) -> Iterator[str]:
    """Every `$ref`."""
    if isinstance(part, Mapping):
        for name, value in part.items():
            yield from [value] if name == "$ref" else references(value)
    elif isinstance(part, list | tuple):
        for value in part:
            yield from references(value)


def test_every_topic_is_a_channel() -> None:
    """Those that are built, and those that are understood."""
    addresses = {channel["address"] for channel in DOCUMENT["channels"].values()} - {None}
    assert addresses == {
        TOPICS.change("{Object}", "{operation}", RecordId("{Id}")),
        TOPICS.record("{Object}", RecordId("{Id}")),
        f"{TOPICS.root}/result/{{command_id}}",
        f"{TOPICS.root}/reply/{{verb}}",
        TOPICS.command("{Object}", "{operation}"),
        TOPICS.query("{Object}", "{verb}"),
        TOPICS.control("{verb}"),
        TOPICS.status,
        TOPICS.health,
        TOPICS.hole("{Object}"),
        TOPICS.mirror("{node}"),
        TOPICS.rejected,
        TOPICS.signals_out,
        TOPICS.signals_in,
    }


@pytest.mark.parametrize("channel", ["command", "query", "control"])
def test_what_is_taken_can_be_written(channel: str) -> None:
    """Each listed verb is one that the connector understands."""
    described = DOCUMENT["channels"][channel]
    (last,) = [p for name, p in described["parameters"].items() if name in ("operation", "verb")]
    for verb in last["enum"]:
        topic = described["address"].replace("{Object}", "Contact").replace("{operation}", verb).replace("{verb}", verb)
        incoming = TOPICS.parse(topic)
        assert incoming is not None
        assert (incoming.kind, incoming.verb) == (channel, verb)


def test_every_parameter_of_an_address_is_described() -> None:
    """And no other."""
    for name, channel in DOCUMENT["channels"].items():
        named = {part[1:-1] for part in (channel["address"] or "").split("/") if part.startswith("{")}
        assert named == channel.get("parameters", {}).keys(), name


def test_references_lead_somewhere_and_everything_is_referred_to() -> None:
    """A component that nothing uses, or a reference to nothing, is a mistake."""
    used = set(references(DOCUMENT))
    for reference in used:
        assert resolved(reference) is not None
    for kind in ("messages", "schemas"):
        unused = {f"#/components/{kind}/{name}" for name in DOCUMENT["components"][kind]} - used
        assert unused == set()


def test_requests_are_answered_where_the_asker_says() -> None:
    """By the Response Topic; the correlation data comes back."""
    asking = {name: o for name, o in DOCUMENT["operations"].items() if "reply" in o}
    assert asking.keys() == {"takeCommand", "answerQuery", "takeControl"}
    for operation in asking.values():
        assert operation["reply"]["address"]["location"] == "$message.header#/responseTopic"
        assert resolved(operation["reply"]["channel"]["$ref"])["address"] is None
        for message in operation["messages"]:
            kind = resolved(resolved(message["$ref"])["$ref"])
            assert kind["correlationId"]["location"] == "$message.header#/correlationData"
            assert kind["headers"]["properties"].keys() == {"responseTopic", "correlationData"}


def test_bindings_tell_qos_and_what_is_retained() -> None:
    """As section 1 of the interface has it."""
    bindings = {name: operation["bindings"]["mqtt"] for name, operation in DOCUMENT["operations"].items()}
    assert {binding["qos"] for binding in bindings.values()} == {1}
    assert {name for name, binding in bindings.items() if binding["retain"]} == {
        "publishRecord",
        "publishStatus",
        "publishHealth",
        "publishMirror",
        "openHole",
    }


def test_changes_are_cloud_events() -> None:
    """In structured mode, told by their content type."""
    change = DOCUMENT["components"]["messages"]["change"]
    assert change["contentType"] == change["bindings"]["mqtt"]["contentType"] == "application/cloudevents+json"


@pytest.mark.parametrize("name", MESSAGES)
def test_examples_fit_their_own_schema(name: str) -> None:
    """Each message has some, and the document validates them without any other file."""
    message = DOCUMENT["components"]["messages"][name]
    schema = {**message["payload"], "components": DOCUMENT["components"]}
    for example in message["examples"]:
        Draft202012Validator(schema).validate(example["payload"])
    assert message["examples"]
    if MESSAGES[name].document is not None:
        assert not Draft202012Validator(schema).is_valid([])


def test_every_document_is_a_message() -> None:
    """Nothing in schemas/ is without a topic; `change` is the data of one."""
    assert {message.document for message in MESSAGES.values()} == {*DOCUMENTS, None} - {"change"}


def test_of_an_installation_it_names_topics_and_objects() -> None:
    """`salesforce-sync schema asyncapi`."""
    spec = object_spec(real_describe("Lead"), ["Name", "Status"])
    document = asyncapi(Topics(root="home/crm", org_code="HUB", target="EDGE"), {"Lead": spec})
    channels = document["channels"]
    assert channels["change"]["address"] == "home/crm/change/{Object}/{operation}/{Id}"
    assert channels["signalsOut"]["address"] == "blackroad/signals/HUB/EDGE"
    assert channels["change"]["parameters"]["Object"]["enum"] == ["Lead"]
    assert channels["query"]["parameters"]["Object"]["enum"] == ["Lead", "_all"]
    record = document["components"]["schemas"]["LeadRecord"]
    assert record["required"] == ["Id", "Name", "Status"]
    assert json.loads(json.dumps(document))["components"]["messages"]["record"]["payload"] == {
        "anyOf": [{"$ref": "#/components/schemas/LeadRecord"}]
    }
