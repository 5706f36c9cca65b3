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
# The words of a few rows wait for more (`store/textindex.py`) until so long no change has come, and so long at most.
# Our own searches find them meanwhile; other programs read the index as it is.
QUIET_S = 5.0
SETTLE_S = 60.0

Loaded = Callable[[Unit, str], bool]


def loaded(unit: Unit, name: str) -> bool:
    """True once the object's records are there."""
    state = LoadState.stored(unit, name)
    return state is not None and not (state.kind == "first" and state.state == "loading")


async def index_objects(replica: Replica, names: Collection[str], ready: Loaded = loaded) -> None:
    """Make what the loaded ones of these objects lack."""
    for name in names:
        more = True
        while more:
            more = await replica.run(partial(_piece, name, ready))


async def settle_objects(replica: Replica, names: Collection[str]) -> None:
    """Have the text indexes of these objects say what the rows say."""
    for name in names:
        await replica.run(partial(_settle, name))


async def keep_indexed(replica: Replica, names: Callable[[], Collection[str]], ready: Loaded = loaded) -> None:
    """Make what loaded objects lack, whenever that is; does not end."""
    elapsed_s = asyncio.get_running_loop().time
    looked_s = settled_s = elapsed_s()
    version = -1
    while True:
        await index_objects(replica, list(names()), ready)
        if elapsed_s() - looked_s >= QUIET_S:
            looked_s, before = elapsed_s(), version
            version = await replica.run(_last_version)
            if version == before or looked_s - settled_s >= SETTLE_S:
                await settle_objects(replica, list(names()))
                settled_s = looked_s
        await asyncio.sleep(LOOK_S)


def _last_version(unit: Unit) -> int:
    return unit.last_version()


def _settle(name: str, unit: Unit) -> None:
    unit.settle_index(name)


def _piece(name: str, ready: Loaded, unit: Unit) -> bool:
    return ready(unit, name) and unit.extend_indexes(name, PIECE_ROWS)
