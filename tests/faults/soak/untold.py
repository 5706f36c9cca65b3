"""Changes in the org that no event tells as they are: with none at all, or with one that says less than it should."""

import contextlib
import json
import random
from collections.abc import Mapping
from typing import Any

from connector.devorg.context import UI_ORIGIN
from connector.devorg.errors import OrgError
from connector.devorg.events.changes import event_header
from connector.devorg.objects.residents import FIRST_EDITOR_ID
from tests.faults.soak import orders
from tests.faults.soak.fields import OBJECTS, values_for
from tests.faults.soak.world import World

# Garbage in these is seen whatever the object and whatever is synced of it: it may take the place of a change.
_IN_EVERY_EVENT = {"ChangeEventHeader", "LastModifiedDate"}
SURELY_GARBAGE = tuple(garbage for garbage in orders.GARBAGE if garbage.keys() & _IN_EVERY_EVENT)


def change_untold(world: World, rng: random.Random, name: str, kind: str) -> list[str]:
    """Change some records without an event, as an event of that kind (`GAP_DELETE`) would tell of; returns which."""
    editor, done = world.editor, list[str]()
    ids = [""] if kind == "GAP_CREATE" else editor.ids(name, deleted=kind == "GAP_UNDELETE")
    with world.org.ctx.org.transaction(FIRST_EDITOR_ID, UI_ORIGIN, announce=False) as transaction:
        for record_id in rng.sample(ids, min(len(ids), rng.randint(1, 4))):
            with contextlib.suppress(OrgError):  # held by a transaction, a converted lead, lost in a merge
                match kind:
                    case "GAP_CREATE":
                        done.append(transaction.create(name, values_for(rng, editor, name, creating=True)))
                        continue
                    case "GAP_DELETE":
                        transaction.delete(name, record_id)
                    case "GAP_UNDELETE":
                        transaction.undelete(name, record_id)
                    case _:
                        transaction.update(name, record_id, values_for(rng, editor, name, creating=False))
                done.append(record_id)
    return done


def garbled(world: World, rng: random.Random, garbage: Mapping[str, Any]) -> tuple[str, int]:
    """An event that cannot be read, in the place of a change where that is sure to be noticed; its replay id."""
    name = rng.choice(OBJECTS)
    ids = change_untold(world, rng, name, "UPDATE") if garbage.keys() & _IN_EVERY_EVENT else []
    ids = ids or world.editor.live(name)[:1]
    header = event_header(
        entity=name,
        record_ids=ids,
        change_type="UPDATE",
        transaction_key=f"garbage-{rng.getrandbits(32)}",
        commit_ms=world.org.ctx.clock.now_ms(),
        commit_number=1,
        user_id=FIRST_EDITOR_ID,
    )
    payload: Any = {**garbage, "ChangeEventHeader": {**header, **garbage.get("ChangeEventHeader", {})}}
    if rng.random() < 0.2:
        payload = rng.choice(([], "text", {}, None, {"ChangeEventHeader": None}))
    return f"{name} {json.dumps(payload)[:200]}", world.org.ctx.bus.emit(payload, entity=name)
