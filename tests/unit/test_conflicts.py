"""Two editors of one record: no field is overwritten against its policy."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from connector.model.command import ConflictPolicy
from connector.outbound.conflicts import decide

FIELDS = ("Phone", "Email", "Title")
BASE: dict[str, Any] = {"Phone": "1", "Email": "a", "Title": None}

records = st.fixed_dictionaries({name: st.sampled_from([None, "1", "2", "a"]) for name in FIELDS})
writes = st.dictionaries(st.sampled_from(FIELDS), st.sampled_from([None, "1", "2", "a"]), min_size=1)
policies = st.sampled_from(ConflictPolicy)


def test_fields_changed_on_one_side_merge() -> None:
    """Merge sends ours and leaves the other side's alone."""
    decision = decide({"Phone": "2"}, BASE, {**BASE, "Email": "b"}, ConflictPolicy.MERGE, {})
    assert (decision.send, decision.conflict) == ({"Phone": "2"}, {})


def test_a_field_changed_on_both_sides_is_told_with_all_three_values() -> None:
    """The result names base, local and remote."""
    decision = decide({"Phone": "2"}, BASE, {**BASE, "Phone": "3"}, ConflictPolicy.MERGE, {})
    assert decision.conflict == {"Phone": {"base": "1", "local": "2", "remote": "3"}}


def test_reject_refuses_any_change_of_the_record() -> None:
    """Even one of a field that the command does not write."""
    decision = decide({"Phone": "2"}, BASE, {**BASE, "Title": "x"}, ConflictPolicy.REJECT, {})
    assert decision.conflict == {"Title": {"base": None, "local": None, "remote": "x"}}


def test_what_is_there_already_is_not_sent() -> None:
    """Both sides made the same change."""
    decision = decide({"Phone": "2"}, BASE, {**BASE, "Phone": "2"}, ConflictPolicy.MERGE, {})
    assert (decision.send, decision.conflict) == ({}, {})


def test_owner_decides_before_the_policy() -> None:
    """The mesh's own fields win; the org's own never lose, not even by overwrite."""
    remote = {**BASE, "Phone": "3"}
    assert decide({"Phone": "2"}, BASE, remote, ConflictPolicy.MERGE, {"Phone": "mesh"}).conflict == {}
    assert decide({"Phone": "2"}, BASE, remote, ConflictPolicy.OVERWRITE, {"Phone": "org"}).conflict
    assert decide({"Phone": "2"}, BASE, remote, ConflictPolicy.OVERWRITE, {}).conflict == {}


@given(wanted=writes, base=records, remote=records, policy=policies)
def test_nothing_the_other_side_changed_is_overwritten(
    wanted: dict[str, Any], base: dict[str, Any], remote: dict[str, Any], policy: ConflictPolicy
) -> None:
    """Without overwrite, a field that is sent is one that the org has not changed since base."""
    decision = decide(wanted, base, remote, policy, {})
    if policy is not ConflictPolicy.OVERWRITE and not decision.conflict:
        assert all(remote[name] == base[name] for name in decision.send)
    assert set(decision.send) <= set(wanted)
    assert all(remote[name] != value for name, value in decision.send.items())


@given(wanted=writes, base=records, policy=policies)
def test_an_untouched_record_never_conflicts(
    wanted: dict[str, Any], base: dict[str, Any], policy: ConflictPolicy
) -> None:
    """With the org as it was, the write goes as it is, whatever the policy."""
    decision = decide(wanted, base, base, policy, {})
    assert decision.conflict == {}
    assert {**base, **decision.send} == {**base, **wanted}
