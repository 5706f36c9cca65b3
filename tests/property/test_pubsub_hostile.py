"""No schema and no payload of a Pub/Sub server breaks the reading of events; what was written is read as it was."""

import json
from io import BytesIO
from typing import Any

import fastavro
from hypothesis import given
from hypothesis import strategies as st

from connector.salesforce.pubsub_bitmaps import field_names
from connector.salesforce.pubsub_event import payload_of, remains_of
from connector.salesforce.pubsub_schema import EventSchema

LISTS = ("nulledFields", "diffFields", "changedFields")
TEXTS = {"type": "array", "items": "string"}
ADDRESS = {"type": "record", "name": "Address", "fields": [
    {"name": "City", "type": ["null", "string"]}, {"name": "Latitude", "type": ["null", "double"]},
]}  # fmt: skip
SCHEMA: dict[str, Any] = {
    "type": "record", "name": "ContactChangeEvent", "namespace": "com.sforce.eventbus", "fields": [
        {"name": "ChangeEventHeader", "type": {"type": "record", "name": "ChangeEventHeader", "fields": [
            {"name": "entityName", "type": "string"},
            {"name": "recordIds", "type": TEXTS},
            {"name": "changeType", "type": {"type": "enum", "name": "ChangeType", "symbols": ["CREATE", "UPDATE"]}},
            {"name": "sequenceNumber", "type": "int"},
            {"name": "commitTimestamp", "type": "long"},
            *({"name": name, "type": TEXTS} for name in LISTS),
        ]}},
        {"name": "Phone", "type": ["null", "string"]},
        {"name": "MailingAddress", "type": ["null", ADDRESS]},
        {"name": "OtherAddress", "type": ["null", "com.sforce.eventbus.Address"]},
        {"name": "DoNotCall", "type": ["null", "boolean"]},
    ],
}  # fmt: skip
PARSED = fastavro.parse_schema(SCHEMA)
SERVED = json.dumps(SCHEMA)
texts = st.text(max_size=20).map(lambda text: text.replace("\0", ""))
addresses = st.none() | st.fixed_dictionaries(
    {"City": st.none() | texts, "Latitude": st.none() | st.floats(allow_nan=False)}
)
bodies = st.fixed_dictionaries(
    {
        "Phone": st.none() | texts,
        "MailingAddress": addresses,
        "OtherAddress": addresses,
        "DoNotCall": st.none() | st.booleans(),
    }
)


def written(body: dict[str, Any], **lists: list[str]) -> bytes:
    header = {
        "entityName": "Contact", "recordIds": ["0035f00002KmQ7aAAF"], "changeType": "UPDATE", "sequenceNumber": 1,
        "commitTimestamp": 1767268870000, **{name: [] for name in LISTS}, **lists,
    }  # fmt: skip
    out = BytesIO()
    fastavro.schemaless_writer(out, PARSED, {"ChangeEventHeader": header, **body})
    return out.getvalue()


@given(bodies)
def test_what_was_written_is_read_without_its_nulls(body: dict[str, Any]) -> None:
    """Nothing else is lost, and nothing is added."""
    payload = payload_of(EventSchema(SERVED), written(body, nulledFields=["0x02", "2-0x01"]))
    assert payload.pop("ChangeEventHeader")["nulledFields"] == ["Phone", "MailingAddress.City"]
    parts = {n: {p: v for p, v in value.items() if v is not None} if isinstance(value, dict) else value
             for n, value in body.items()}  # fmt: skip
    assert payload == {name: value for name, value in parts.items() if value is not None and value != {}}


@given(bodies, st.data())
def test_a_payload_that_was_changed_on_its_way_is_read_or_refused(body: dict[str, Any], data: st.DataObject) -> None:
    """Cut, longer, or with other bytes: never anything but a payload or a ValueError."""
    schema, whole = EventSchema(SERVED), bytearray(written(body, changedFields=["0x02"]))
    for _ in range(data.draw(st.integers(0, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    sent = bytes(whole[: data.draw(st.integers(0, len(whole)))]) + data.draw(st.binary(max_size=20))
    try:
        payload = payload_of(schema, sent)
    except ValueError:
        remains = remains_of(schema, sent)
        assert remains is None or "entityName" in remains["ChangeEventHeader"]
    else:
        assert isinstance(payload["ChangeEventHeader"]["recordIds"], list)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(sent: bytes) -> None:
    """As above, from nothing."""
    schema = EventSchema(SERVED)
    try:
        payload_of(schema, sent)
    except ValueError:
        remains_of(schema, sent)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["record", "string", "null", "Address", "long"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "name", "fields", "items", "symbols", "namespace"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(values, st.integers(0, 4), st.booleans())
def test_any_schema_is_taken_or_refused(part: Any, at: int, as_text: bool) -> None:
    """In the place of one of the fields' types, or as the whole."""
    schema = json.loads(SERVED)
    if not as_text:
        schema["fields"][at]["type"] = part
    try:
        EventSchema(json.dumps(part if as_text else schema))
    except ValueError:
        return


@given(st.lists(st.text("0123456789xABCDEFabcdef-", max_size=12), max_size=4))
def test_any_list_is_read_or_refused(bitmaps: list[str]) -> None:
    """Only names that the schema has come out."""
    fields = EventSchema(SERVED).fields
    known = {name for name, _ in fields} | {f"{name}.{part}" for name, parts in fields for part in parts}
    try:
        assert set(field_names(bitmaps, fields)) <= known
    except ValueError:
        return
