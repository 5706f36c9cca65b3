"""The account of what each command did to the org: one effect or none, and one answer that goes with it."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from connector.devorg.commits import Commit, RowChange
from connector.outbound.view import CLOCK_SKEW_MS
from tests.faults.soak.commands import FINAL, JOBS, KEYED, MARKED, OURS, Asked, Lost
from tests.faults.soak.plan import SETTLE_S

# Stamps are whole seconds, and so is what the org tells of its clock.
_ROUNDED_MS = 1000
# No seed takes so long.
_CLOCK_WAS_SET_MS = 600_000


@dataclass(frozen=True, slots=True)
class Deeds:
    """What happened in the org.

    Attributes:
        commits: All of them, in order.
        purged: Id of a record that is gone for good -> how many commits there were by then.
    """

    commits: Sequence[Commit]
    purged: Mapping[str, int]

    def ours(self) -> Iterator[Commit]:
        """What the connector wrote."""
        return (commit for commit in self.commits if commit.origin.startswith(OURS))

    def by_mark(self) -> Mapping[str, Sequence[RowChange]]:
        """What the connector wrote, by the mark of the command where it left a new one."""
        found: dict[str, list[RowChange]] = {}
        for change in (change for commit in self.ours() for change in commit.changes):
            name = MARKED.get(change.object)
            now = change.after.get(name) if name else None
            before = change.before.get(name) if name and change.before else None
            if isinstance(now, str) and now != before:
                found.setdefault(now, []).append(change)
        return found

    def tells_nothing_of(self, one: Asked) -> bool:
        """Whether a command whose answer was lost has left nothing to tell whether it was carried out.

        An upsert, whose record went since. One that expired: its record is gone or was written to since, or it may be
        under way in the org.
        """
        if one.lost is None:
            return False
        if one.operation == "upsert" and self._went(one.body["external_id"], one.lost):
            return True
        if one.body.get("expires_at") is None:
            return False
        if not SETTLE_S * 1000 + _ROUNDED_MS < one.lost.waited_ms < _CLOCK_WAS_SET_MS:
            return True
        record_id = one.body.get("id") or (one.final or {}).get("id")
        told_ms = _told_ms(one.lost)
        own = [(commit, change) for commit in self.commits for change in commit.changes if change.id == record_id]
        return not own or any(commit.commit_ms > told_ms or change.kind == "DELETE" for commit, change in own)

    def _went(self, key: Mapping[str, str], lost: Lost) -> bool:
        """Whether a record with this external id was deleted since the command was sent."""
        return any(
            change.kind == "DELETE" and change.after.get(key["field"]) == key["value"]
            for commit in self.commits
            if commit.commit_ms > _told_ms(lost)
            for change in commit.changes
        )

    def was_gone(self, record_id: str, later: RowChange) -> bool:
        """Whether nothing showed any more that there had been a record when this was written."""
        at = next(at for at, commit in enumerate(self.commits) if any(change is later for change in commit.changes))
        return self.purged.get(record_id, at + 1) <= at


def _told_ms(lost: Lost) -> int:
    """What was committed later may have come after the command; by the org's clock."""
    return lost.began_ms - CLOCK_SKEW_MS - _ROUNDED_MS


def wrong_accounts(asked: Mapping[str, Asked], deeds: Deeds, live: Collection[str], *, doubled: bool) -> Iterator[str]:
    """Commands whose results and effects do not go together: each has one effect or none, and one answer.

    Args:
        asked: All commands.
        deeds: Everything that happened in the org.
        live: Ids of the records that are not deleted.
        doubled: The broker was away for a while: what the service had sent it, it may have got twice.
    """
    by_mark = deeds.by_mark()
    by_others, by_us = (_overwritten(deeds.commits, by_us=by_us) for by_us in (False, True))
    for one in asked.values():
        if one.operation != "delete" and (one.command_id or not doubled):
            if one.final is None and one.heard and not doubled:
                yield f"{one}: the daemon had subscribed, and there is no answer"
            changes = _to_be_seen(one, by_mark.get(one.mark, []), deeds)
            again = one.tried_again and (one.mark in by_us or (one.mark in by_others and _wins(one)))
            yield from _wrong(one, changes, asked, deeds, again=again)
    yield from _wrong_deletes(asked, deeds, live)
    yield from (f"{mark}: written by no command" for mark in by_mark if mark not in asked)


def _wrong(
    one: Asked, changes: Sequence[RowChange], asked: Mapping[str, Asked], deeds: Deeds, *, again: bool
) -> Iterator[str]:
    finals = {(r["status"], r["id"]) for r in one.results if r["status"] in FINAL}
    if len(finals) > 1:
        yield f"{one}: several answers: {sorted(map(str, finals))}"
    final = one.final
    if final is None:
        if one.command_id or len(changes) > one.copies:
            yield f"{one}: no final answer, {len(changes)} effects"
        return
    status = final["status"]
    if not one.valid and status != "rejected":
        yield f"{one}: {status}, though it names no such field"
    found_out = one.operation != "create" or one.object == KEYED
    if status == "unknown" and found_out and not deeds.tells_nothing_of(one):
        yield f"{one}: unknown, though it could be found out"
    least, most = _expected(one, asked, again=again)
    if not least <= len(changes) <= most:
        yield f"{one}: {status} after {final['attempts']} attempts with {len(changes)} effects"
    if status == "succeeded" and changes and changes[-1].id != final["id"] and final["id"] is not None:
        yield f"{one}: its result names {final['id']}, it wrote {changes[-1].id}"


def _wins(one: Asked) -> bool:
    """Whether it is written whatever somebody else has written."""
    return one.operation == "upsert" or one.body.get("on_conflict") == "overwrite"


def _expected(one: Asked, asked: Mapping[str, Asked], *, again: bool) -> tuple[int, int]:
    """How many effects its answer stands for, at least and at most.

    `again`: the answer was lost, and what it had written was written over or deleted, so that it is written anew.
    """
    final = one.final or {}
    match final["status"]:
        case "succeeded":
            superseded = one.operation == "update" and _superseded(one, asked)
            return 0 if superseded else 1, max(2, final["attempts"]) if again else 1
        case "unknown":
            return 0, 1
        case "conflict" | "failed":
            return 0, int(one.tried_again)
        case _:
            return 0, 0


def _superseded(one: Asked, asked: Mapping[str, Asked]) -> bool:
    """Whether a later command wrote the same field of the same record: the two may have gone as one."""
    later = [a for a in asked.values() if a.body.get("id") == one.body.get("id") and a.operation == "update"]
    return any(a is not one and a.settled for a in later[later.index(one) + 1 :])


def _overwritten(commits: Sequence[Commit], *, by_us: bool) -> frozenset[str]:
    """Marks that somebody else has written beside or deleted afterwards; or that we have written over."""
    marks: set[str] = set()
    for commit in commits:
        for change in commit.changes:
            name = MARKED.get(change.object)
            mark = change.before.get(name) if name and change.before else None
            ours = commit.origin.startswith(OURS) and change.kind != "DELETE"
            if isinstance(mark, str) and ours == by_us and not (ours and change.after.get(name or "") == mark):
                marks.add(mark)
    return frozenset(marks)


def _to_be_seen(one: Asked, changes: Sequence[RowChange], deeds: Deeds) -> Sequence[RowChange]:
    """Without records that it made, and that were gone for good when the org was asked for them."""
    made = [change for change in changes if change.kind == "CREATE"]
    gone = [first.id for first, later in pairwise(made) if one.tried_again and deeds.was_gone(first.id, later)]
    return [change for change in changes if change.id not in gone]


def _deleted(commit: Commit) -> Sequence[str]:
    """The records that the commit's commands have named: the first one, or of a job all of its object.

    What cascades comes behind it, and is of other objects.
    """
    first = commit.changes[0]
    if first.kind != "DELETE":
        return []
    if not commit.origin.startswith(JOBS):
        return [first.id]
    return [c.id for c in commit.changes if c.kind == "DELETE" and c.object == first.object]


def _wrong_deletes(asked: Mapping[str, Asked], deeds: Deeds, live: Collection[str]) -> Iterator[str]:
    """Deletes carry no mark: of each record they are counted together."""
    wanted: dict[str, list[Asked]] = {}
    for one in asked.values():
        if one.operation == "delete":
            wanted.setdefault(one.body["id"], []).append(one)
    commits = deeds.commits
    ours = [c for c in deeds.ours() if c.changes]
    done = Counter(record_id for commit in ours for record_id in _deleted(commit))
    restored = Counter(change.id for commit in commits for change in commit.changes if change.kind == "UNDELETE")
    gone = {change.id for commit in commits for change in commit.changes if change.kind == "DELETE"}
    for record_id, ones in wanted.items():
        # The answer was lost, and somebody restored the record meanwhile: it is deleted again.
        again = any(one.tried_again for one in ones)
        if done[record_id] > len(ones) + (restored[record_id] if again else 0):
            yield f"{ones[0]}: {len(ones)} deletes asked for, {done[record_id]} made"
        for one in ones:
            if one.final is None:
                if one.command_id:
                    yield f"{one}: no final answer"
            elif one.final["status"] == "unknown" and not deeds.tells_nothing_of(one):
                yield f"{one}: a delete that ends as {one.final['status']}"
            elif (
                one.final["status"] == "succeeded"
                and record_id in live
                and not done[record_id]
                and record_id not in gone
            ):
                yield f"{one}: succeeded, but nobody ever deleted the record"
    yield from (f"{record_id}: deleted by no command" for record_id in done if record_id not in wanted)
