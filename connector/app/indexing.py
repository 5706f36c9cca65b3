"""Makes the indexes of objects once they are loaded, between everything else that the database has to do."""

import asyncio
from collections.abc import Callable, Collection
from functools import partial

from connector.inbound.progress import LoadState
from connector.ports import Replica, Unit

# One piece takes some tens of milliseconds of the writer.
PIECE_ROWS = 1000
# How often it is looked for an object that has been loaded, or described anew, since.
LOOK_S = 1.0


async def index_objects(replica: Replica, names: Collection[str]) -> None:
    """Make what the loaded ones of these objects lack."""
    for name in names:
        more = True
        while more:
            more = await replica.run(partial(_piece, name))


async def keep_indexed(replica: Replica, names: Callable[[], Collection[str]]) -> None:
    """Make what loaded objects lack, whenever that is; does not end."""
    while True:
        await index_objects(replica, list(names()))
        await asyncio.sleep(LOOK_S)


def _piece(name: str, unit: Unit) -> bool:
    state = LoadState.stored(unit, name)
    if state is None or (state.kind == "first" and state.state == "loading"):
        return False
    return unit.extend_indexes(name, PIECE_ROWS)
