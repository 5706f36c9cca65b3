"""Two sides wrote the same record: which of our fields go, and which are a conflict. Pure."""

from collections.abc import Mapping
from typing import Any

from connector.model.command import ConflictPolicy
from connector.model.noun import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do with an update.

    Attributes:
        send: Fields that still differ in the org; empty if there is nothing left to write.
        conflict: Field -> base, local and remote value; if not empty, nothing may be sent.
    """

    send: Mapping[str, Any]
    conflict: Mapping[str, Mapping[str, Any]]


def decide(
    wanted: Mapping[str, Any],
    base: Mapping[str, Any] | None,
    remote: Mapping[str, Any],
    policy: ConflictPolicy,
    owner: Mapping[str, str],
) -> Decision:
    """Three-way comparison, field by field.

    A field that the org holds already is not sent. One that the org changed since `base` is a conflict under `merge`;
    under `reject` so is any change of the record; under `overwrite`, and where `owner` says `mesh`, ours is sent;
    where `owner` says `org`, a field that both changed is always a conflict.

    Args:
        wanted: What the command sets.
        base: The record as the sender had seen it; None or a missing field: unknown, taken as unchanged.
        remote: The record as the org has it, as far as known; a missing field is taken as unchanged.
        policy: The command's `on_conflict`.
        owner: Field -> `org`, `mesh` or `shared`, from the settings.
    """
    base = base or {}
    send = {name: value for name, value in wanted.items() if name not in remote or remote[name] != value}
    moved = _moved(base, remote)
    both = {name for name in moved.intersection(send) if not is_ours(policy, owner.get(name, "shared"))}
    if policy is ConflictPolicy.REJECT:
        both |= {name for name in moved if wanted.get(name, base[name]) != remote[name]}
    return Decision(
        send=send,
        conflict={
            name: {"base": base[name], "local": wanted.get(name, base[name]), "remote": remote[name]}
            for name in sorted(both)
        },
    )


def decide_delete(
    base: Mapping[str, Any] | None, remote: Mapping[str, Any], policy: ConflictPolicy, owner: Mapping[str, str]
) -> Mapping[str, Mapping[str, Any]]:
    """The conflicts of a delete, which takes every field: those that the org changed since `base`."""
    base = base or {}
    both = {name for name in _moved(base, remote) if not is_ours(policy, owner.get(name, "shared"))}
    return {name: {"base": base[name], "local": None, "remote": remote[name]} for name in sorted(both)}


def is_ours(policy: ConflictPolicy, owner: str) -> bool:
    """True if our value of a field goes whatever the org did to it."""
    return owner == "mesh" or (owner == "shared" and policy is ConflictPolicy.OVERWRITE)


def _moved(base: Mapping[str, Any], remote: Mapping[str, Any]) -> set[str]:
    """What the org changed since `base`."""
    return {name for name, value in base.items() if name in remote and remote[name] != value}
