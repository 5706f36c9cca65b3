"""What happens once all is quiet: changes that one event alone tells of, each badly in another way.

While things are in upheaval a poll, a restart or a comparison puts right what an event was misread for. Now there is
none: what the event does not bring stays away.
"""

import random
from collections.abc import Mapping, Sequence

import orjson

from connector.devorg.context import UI_ORIGIN
from connector.devorg.errors import OrgError
from tests.faults.soak.edits import Editor
from tests.faults.soak.fields import EDITORS, OBJECTS, TEXTS, word
from tests.faults.soak.untold import SURELY_GARBAGE, change_untold, garbled
from tests.faults.soak.world import World

_GAPS = ("GAP_CREATE", "GAP_UPDATE")
_DESCRIBED = OBJECTS[:4]


def play(world: World, rng: random.Random) -> None:
    """All of it at once; lines go into the trace."""
    world.note(Editor(world.org.ctx, unseen=False).edit(rng).line)
    for name, work in {"gap": _gap, "garbled": _garbled, "misfit": _misfit, "repeated": _repeated}.items():
        world.note(f"{name}: {work(world, rng)}")


def _gap(world: World, rng: random.Random) -> str:
    """An event that names the records and nothing of what changed."""
    name, kind = rng.choice(OBJECTS), rng.choice(_GAPS)
    ids = change_untold(world, rng, name, kind)
    if ids:
        world.org.ctx.bus.emit_without_body(name, kind, ids)
    return f"{kind} {' '.join(ids)}"


def _garbled(world: World, rng: random.Random) -> str:
    """An event that cannot be read: its record is to be read instead, and the event to be kept."""
    goes_on = world.position() is not None  # else what comes while it subscribes anew is read by query alone
    line, replay_id = garbled(world, rng, rng.choice(SURELY_GARBAGE))
    if goes_on:
        world.to_quarantine.add(replay_id)
    return line


def _misfit(world: World, rng: random.Random) -> str:
    """The difference between two texts neither of which the replica has."""
    name = rng.choice(_DESCRIBED)
    lines = [word(rng) * 4 for _ in range(80)]
    texts = "\n".join(lines), "\n".join([word(rng), *lines])
    return f"{name} {_write(world, rng, name, [{'Description': text} for text in texts], told=(False, True))}"


def _repeated(world: World, rng: random.Random) -> str:
    """An event that comes again behind the next one of its record."""
    name, bus = rng.choice(OBJECTS), world.org.ctx.bus
    before = bus.latest_id()
    done = _write(world, rng, name, [{TEXTS[name]: word(rng)} for _ in range(2)], told=(True, True))
    statement = "SELECT payload FROM event_log WHERE replay_id > ? AND entity = ? ORDER BY replay_id LIMIT 1"
    first = world.org.ctx.database.connection.execute(statement, (before, name)).fetchone()
    if first is not None:
        bus.emit(orjson.loads(first[0]), entity=name)
    return f"{name} {done}"


def _write(
    world: World, rng: random.Random, name: str, each: Sequence[Mapping[str, str]], *, told: Sequence[bool]
) -> str:
    """Each of these values to one record, by somebody else each time, with an event or without; which record."""
    for record_id in rng.sample(ids := world.editor.live(name), len(ids)):
        try:
            for user, values, announce in zip(EDITORS, each, told, strict=False):
                with world.org.ctx.org.transaction(user, UI_ORIGIN, announce=announce) as transaction:
                    transaction.update(name, record_id, values)
        except OrgError:  # a converted lead
            continue
        return record_id
    return "no record"
