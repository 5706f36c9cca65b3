"""Any change that the model allows becomes a document that its schema accepts, and reads back as it was."""

import string
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from connector.mesh.envelope import Envelope, rejected_message
from connector.mesh.topics import Topics
from connector.model.change import Change, CommitInfo, Operation, Origin
from connector.model.documents import ChangeEventDocument, RejectedDocument
from connector.model.ids import to_record_id
from connector.model.jsontext import JsonText

TOPICS = Topics()
ENVELOPE = Envelope(TOPICS, node="n")
ENVELOPE.use_org("00D000000000001")

ids = st.text(string.ascii_letters + string.digits, min_size=15, max_size=15).map(to_record_id)
names = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,20}", fullmatch=True).filter(lambda name: name != "Id")
text = st.text(st.characters(exclude_categories=["Cs"]))
values = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
fields = st.dictionaries(names, values | text, max_size=8)
commits = st.builds(
    CommitInfo,
    timestamp_ms=st.integers(0, 4_000_000_000_000),
    number=st.none() | st.integers(0, 2**62),
    user=st.none() | text,
    transaction=st.none() | text,
    sequence=st.none() | st.integers(1, 10_000),
)
changes = st.builds(
    Change,
    version=st.integers(1, 2**53),
    object=names,
    id=ids,
    operation=st.sampled_from([Operation.CREATE, Operation.UPDATE, Operation.DELETE, Operation.UNDELETE]),
    changed=st.lists(names, max_size=5).map(tuple),
    before=st.none() | fields,
    after=st.none() | fields,
    record=st.none() | fields,
    origin=st.sampled_from(list(Origin)),
    command_id=st.none() | text,
    commit=st.none() | commits,
    applied_ms=st.integers(0, 4_000_000_000_000),
)


@given(changes)
def test_every_change_fits_its_schema_and_reads_back(change: Change) -> None:
    """Nothing is lost on the way, whatever the values are."""
    message = ENVELOPE.change(change)
    ChangeEventDocument.model_validate_json(message.payload)
    data = orjson.loads(message.payload)["data"]
    assert data["changed"] == list(change.changed)
    assert data["record"] == (None if change.record is None else {"Id": change.id, **change.record})
    if change.operation is Operation.UPDATE:
        assert data["after"] == change.after
    assert message.topic.count("/") == 5


@given(st.text(st.characters(exclude_categories=["Cs"])), st.binary(max_size=3000))
def test_any_bytes_can_be_rejected(topic: str, payload: bytes) -> None:
    """The text never has more characters than the payload's first kilobyte has bytes."""
    document = RejectedDocument.model_validate_json(rejected_message(TOPICS, topic, "no", payload).payload)
    assert len(document.payload) <= 1024


@given(st.text(max_size=60))
def test_a_usable_reply_address_is_never_one_of_ours(address: str) -> None:
    """Whatever is asked for: outside the root but replies, outside the signals, no wildcard."""
    if TOPICS.reply_problem(address) is None:
        assert address.startswith("blackroad/salesforce/reply/") or not address.startswith("blackroad/salesforce/")
        assert not address.startswith(("$", "blackroad/signals/"))
        assert not set(address) & set("+#\x00")


@given(changes)
def test_a_change_of_the_log_is_published_as_it_was_told(change: Change) -> None:
    """What the log holds as JSON goes into the message unread, and is the same message."""
    before, after, record = _logged(change.before), _logged(change.after), _logged(change.record)
    logged = replace(change, before=before, after=after, record=record)
    assert orjson.loads(ENVELOPE.change(logged).payload) == orjson.loads(ENVELOPE.change(change).payload)
    told = ENVELOPE.record(change.object, change.id, logged.record)
    assert told.payload == ENVELOPE.record(change.object, change.id, change.record).payload


def _logged(values: Mapping[str, Any] | None) -> JsonText | None:
    return None if values is None else JsonText(orjson.dumps(values).decode())
