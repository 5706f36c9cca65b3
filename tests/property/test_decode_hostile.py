"""Whatever arrives in place of a change event: an event, None or UndecodableEvent, and never a value in the message."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from connector.errors import UndecodableEvent
from connector.inbound.batch import quoted
from connector.inbound.decode import decode, salvage, sequence_of, transaction_of
from connector.inbound.textdiff import apply_diff
from connector.model.change import ChangeEvent
from connector.model.times import to_ms
from tests.events import account_spec, contact_spec, event, record_id

SPECS = {
    "Contact": contact_spec("Birthdate", "IsEmailBounced", "MailingCity", "MailingLatitude", "EmailBouncedDate"),
    "Account": account_spec("Name", "AnnualRevenue", "NumberOfEmployees", "BillingCity"),
}
MARK = "Zq9"  # in every text value, so that it can be looked for

texts = st.text(max_size=8).map(lambda t: MARK + t)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.just("") | st.just("\ud800")
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(
    ["Phone", "Name", "MailingAddress", "Birthdate", "IsEmailBounced", "MailingLatitude", "EmailBouncedDate", "Nope__c"]
)
header_names = st.sampled_from(
    [
        "entityName",
        "recordIds",
        "changeType",
        "changeOrigin",
        "transactionKey",
        "sequenceNumber",
        "commitTimestamp",
        "commitNumber",
        "commitUser",
        "changedFields",
        "nulledFields",
        "diffFields",
    ]
)
kinds = st.sampled_from(["CREATE", "UPDATE", "DELETE", "UNDELETE", "GAP_UPDATE", "GAP_OVERFLOW"])
parts = st.dictionaries(
    st.sampled_from(["FirstName", "LastName", "City", "Latitude", "diff", "x"]), scalars, max_size=4
)


@st.composite
def nearly_events(draw: st.DrawFn) -> Any:
    """A good event with a few members replaced or removed."""
    fields = draw(st.dictionaries(names | st.just("LastModifiedDate"), parts | values, max_size=4))
    payload: dict[str, Any] = event(draw(kinds), record_id(1), Phone="1") | fields
    payload["ChangeEventHeader"] |= draw(st.dictionaries(header_names, values, max_size=2))
    for name in draw(st.lists(header_names, max_size=1)):
        payload["ChangeEventHeader"].pop(name, None)
    return payload


def decoded(payload: Any) -> ChangeEvent | str | None:
    """The event, None, or what the error says."""
    try:
        return decode(payload, SPECS)
    except UndecodableEvent as error:
        return str(error)


def check(payload: Any) -> None:
    got = decoded(payload)
    if isinstance(got, str):
        assert MARK not in got
    if got is None or isinstance(got, str):
        return
    spec = SPECS[got.entity]
    assert got.whole_object or got.record_ids
    assert set(got.values) <= set(spec.by_name) | set(spec.name_parts)
    for name, value in got.values.items():
        assert isinstance(value, str | bool | int | float | None)
        if value is not None and name == "EmailBouncedDate":
            assert isinstance(value, str)
            to_ms(value)
        if isinstance(value, str):
            value.encode()


@given(nearly_events())
def test_nearly_good_events(payload: Any) -> None:
    check(payload)


@given(values)
def test_anything_at_all(payload: Any) -> None:
    check(payload)
    check({"ChangeEventHeader": payload})


@given(values | nearly_events())
def test_the_lenient_readers_never_fail(payload: Any) -> None:
    salvage(payload)
    transaction_of(payload)
    sequence_of(payload)
    assert isinstance(quoted(payload), bytes)


@given(st.text(), st.text() | st.text(alphabet="-+@ 0123456789,\n\r").map(lambda t: f"--- \n+++ {'0' * 64}\n{t}"))
def test_diffs_never_fail_and_never_guess(base: str, diff: str) -> None:
    assert apply_diff(base, diff) is None
