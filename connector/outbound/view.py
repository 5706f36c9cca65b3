"""What is known of a command's record without asking the org: which it is, how it stands, what its sender had seen."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from connector.model.change import Operation
from connector.model.command import Command, command_key, external_key
from connector.model.ids import RecordId
from connector.model.objects import ObjectSpec
from connector.model.times import to_ms
from connector.outbound.shown import Shown
from connector.outbound.steps import MOST_MERGED, Remote
from connector.ports import Unit

# How well the org's clock is known, and that its stamps are whole seconds.
CLOCK_SKEW_MS = 10 * 1000


class RecordView:
    """The records of one object as commands see them; for one unit."""

    def __init__(self, unit: Unit, spec: ObjectSpec, shown: Shown) -> None:
        self._unit = unit
        self._shown = shown
        self._spec = spec
        self._polled_ms: int | None = None

    def resolved(self, command: Command) -> Command:
        """The command with the id of its record, if an earlier command has found it or made it."""
        if command.record_id is not None:
            return command
        if command.record_of is not None:
            return replace(command, record_id=self._unit.record_by_key(command.object, command_key(command.record_of)))
        if command.external_id is not None:
            known = self._unit.record_by_key(command.object, external_key(command.object, *command.external_id))
            return replace(command, record_id=known if known and self._may_live(known) else None)
        return command

    def known(self, record_id: RecordId) -> Remote | None:
        """The record by what the replica holds and our own writes on their way back; None if that is not enough.

        Of a command's fields that it was not sent with, the replica alone tells.
        """
        stored = self._shown.stored(self._spec, record_id)
        unseen = self._shown.unseen(self._spec, record_id)
        modified_ms = 0 if stored is None else stored.modified_ms
        if stored is None:
            # A record that we have just made: what we know of it is what we set.
            if not unseen or unseen[0].operation is not Operation.CREATE:
                return None
        elif stored.deleted_ms is not None:
            return None
        if any(c.answer_lost and c.operation is not Operation.CREATE for c in unseen):
            return None  # its last call may have been but the rest of what it set
        values = {} if stored is None else dict(stored.values)
        for earlier in unseen:
            values.update(earlier.fields if earlier.sent is None else earlier.sent)
            modified_ms = max(modified_ms, earlier.written_ms or 0)
        return Remote(values=values, modified_ms=modified_ms)

    def base(self, command: Command, remote: Remote | None = None) -> Mapping[str, Any] | None:
        """What the sender had seen: the base at acceptance, and what earlier commands have written since.

        Where a write of ours modified the record last, a value that differs from what that write set is what the org
        made of it (a trigger, a rounding). Of every other field it may be somebody's edit: the write came behind it.
        """
        if command.record_id is None:
            return command.base
        earlier: Sequence[Command] = ()
        if command.base_seq is not None:
            earlier = self._unit.written_between(
                command.object, command.record_id, command.base_seq, command.seq or 2**62
            )
        seen = {name: value for one in earlier for name, value in one.fields.items()}
        if remote is not None and remote.values is not None and remote.ours:
            lost = self._lost_fields(command, remote)
            seen |= lost
            last_set = lost or _last_set(earlier, remote)
            seen |= {name: remote.values.get(name, seen[name]) for name in last_set if name in seen}
        return command.base if not seen else {**(command.base or {}), **seen}

    def is_settled(self, remote: Remote) -> bool:
        """True if the record has no other write of the same second that we do not know: it was polled after that.

        The org's stamps, and so the conditional header, are of whole seconds.
        """
        if self._polled_ms is None:
            text = self._unit.cursor(f"poll:{self._spec.name}")
            self._polled_ms = 0 if text is None else to_ms(str(orjson.loads(text)["at"]))
        return remote.modified_ms // 1000 < self._polled_ms // 1000

    def _may_live(self, record_id: RecordId) -> bool:
        stored = self._shown.stored(self._spec, record_id)
        return stored is None or stored.deleted_ms is None

    def _lost_fields(self, command: Command, remote: Remote) -> Mapping[str, Any]:
        """What a lost write of the command's own carried; empty if it is not what modified the record last."""
        if not command.answer_lost or not self._is_own_write(command, remote):
            return {}
        return {name: value for one in (command, *self._sent_with(command)) for name, value in (one.sent or {}).items()}

    def _is_own_write(self, command: Command, remote: Remote) -> bool:
        """True if it is a lost write of the command's own that modified the record last, and no other one of ours."""
        if not remote.ours or command.record_id is None:
            return False
        others_ms = self._unit.last_written_ms(command.object, command.record_id, besides=command.command_id)
        if others_ms is not None and remote.modified_ms // 1000 <= others_ms // 1000:
            return False
        return remote.modified_ms >= (command.began_ms or 0) - CLOCK_SKEW_MS

    def _sent_with(self, command: Command) -> Iterator[Command]:
        """Those behind a command that its lost write carried as well: none behind it is sent in any other way."""
        for behind in self._unit.commands_behind(command, MOST_MERGED):
            if not behind.answer_lost:
                return
            yield behind


def _last_set(earlier: Sequence[Command], remote: Remote) -> Mapping[str, Any]:
    """What the last write of these commands set, for all that it carried; empty if the record was modified later."""
    for one in reversed(earlier):
        if one.written_ms is not None:
            return (one.sent or {}) if remote.modified_ms // 1000 <= one.written_ms // 1000 else {}
    return {}
