"""Another connector on the same root: the two would answer each other's commands and number their changes twice."""

from collections.abc import Callable

import orjson
import structlog

log = structlog.get_logger()

_MAX_NODES = 100
_MAX_NODE_CHARS = 64


class Neighbours:
    """Listens to the root's status topic, where every connector tells that it comes and goes."""

    def __init__(self, node: str, changed: Callable[[str | None], None]) -> None:
        """`changed` is told what is wrong, and None when it is over."""
        self._node = node
        self._changed = changed
        self._there: set[str] = set()

    def heard(self, payload: bytes) -> None:
        """A status message; one that is none of a connector's is left alone."""
        try:
            told = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return
        node = told.get("node") if isinstance(told, dict) else None
        if not isinstance(node, str) or node == self._node:
            return
        if told.get("state") == "online" and node not in self._there and len(self._there) < _MAX_NODES:
            self._there.add(node)
            log.error("mesh.root_shared", node=node[:_MAX_NODE_CHARS])
            shown = node[:_MAX_NODE_CHARS]
            self._changed(f"connector {shown} is on the same mqtt.root: set another root, and other objects, there")
        elif told.get("state") == "offline" and node in self._there:
            self._there.discard(node)
            if not self._there:
                self._changed(None)
