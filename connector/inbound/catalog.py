"""What is known of the synced objects: described by the org, kept on disk, taken over when the org changes them.

The description is stored beside the rows, so that a start without the org knows its tables, and so that a field that
came, went or was retyped while we were down is noticed.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import orjson
import structlog

from connector.errors import OrgRefused, TransientError
from connector.inbound.progress import LoadState
from connector.model.objects import ObjectSpec, object_spec
from connector.ports import OrgClient, Purpose, Replica, Unit

log = structlog.get_logger()

REFRESH_EVERY_S = 12 * 3600.0
# An event with a field that we do not know costs a describe; a stream of them must not cost one each: so many of an
# object in so many seconds. The first ones are read at once, however lately it was described for another reason.
REFRESHES_AT_ONCE = 5
REFRESH_AT_MOST_EVERY_S = 60.0
MAX_UNRESOLVED = 1000

_OBJECT_KEYS = ("name", "keyPrefix", "createable", "updateable", "deletable")
_FIELD_KEYS = (
    "name",
    "type",
    "length",
    "precision",
    "scale",
    "nillable",
    "createable",
    "updateable",
    "defaultedOnCreate",
    "calculated",
    "filterable",
    "unique",
    "externalId",
    "compoundFieldName",
    "restrictedPicklist",
    "referenceTo",
)


class SpecChanged(TransientError):
    """The object's description changed while a request was under way: ask again with the new one."""


class Catalog:
    """The objects in step; `specs` is replaced as a whole, on the database thread, in the unit that alters a table."""

    def __init__(
        self,
        *,
        org: OrgClient,
        replica: Replica,
        wanted: Mapping[str, Sequence[str] | Literal["all"]],
        now_ms: Callable[[], int],
        on_reread: Callable[[str], None] = lambda _name: None,
    ) -> None:
        """`on_reread` is told of an object whose rows lack values of new or retyped fields."""
        self._org = org
        self._replica = replica
        self._wanted = wanted
        self._now_ms = now_ms
        self._on_reread = on_reread
        self._use({})
        self._locks = {name: asyncio.Lock() for name in wanted}
        self._resolved_s: dict[str, deque[float]] = {}
        self._unresolved: dict[str, set[str]] = {}
        self.problems: dict[str, str] = {}

    @property
    def specs(self) -> Mapping[str, ObjectSpec]:
        """The objects that are described; the mapping that one call gives never changes."""
        return self._specs

    def spec(self, name: str) -> ObjectSpec | None:
        """The object, or None if it is not synced or not described yet."""
        return self._specs.get(name)

    def prefixes(self) -> Mapping[str, str]:
        """Key prefix -> object name."""
        return self._prefixes

    def _use(self, specs: Mapping[str, ObjectSpec]) -> None:
        self._specs = MappingProxyType(dict(specs))
        self._prefixes = {spec.key_prefix: name for name, spec in specs.items() if spec.key_prefix}

    def usable(self, name: str) -> bool:
        """True if the org answers for the object."""
        return name in self._specs and name not in self.problems

    def expect(self, spec: ObjectSpec) -> None:
        """For the beginning of a unit that writes rows of `spec`.

        Raises:
            SpecChanged: The object's table has another shape by now.
        """
        if self._specs.get(spec.name) is not spec:
            raise SpecChanged(f"{spec.name}: its description changed meanwhile")

    async def start(self) -> None:
        """Know every object, by the org's word or, where the org cannot be asked now, by the stored one.

        Raises:
            TransientError: The org cannot be asked, and an object was never described.
            LoginRefused: The org refused the credentials.
        """
        await self.restore()
        ends = await asyncio.gather(*(self.refresh(name) for name in self._wanted), return_exceptions=True)
        for name, error in zip(self._wanted, ends, strict=True):
            if not isinstance(error, BaseException):
                continue
            if not isinstance(error, TransientError) or not self._specs.keys() >= self._wanted.keys():
                raise error
            log.warning("catalog.describe_postponed", object=name, error=str(error))

    async def restore(self) -> None:
        """Know what the replica knows."""
        await self._replica.run(self._restore)

    async def run(self) -> None:
        """Read the descriptions again from time to time; does not end."""
        while True:
            await asyncio.sleep(REFRESH_EVERY_S)
            self._unresolved.clear()
            for name in self._wanted:
                try:
                    await self.refresh(name)
                except TransientError as error:
                    log.warning("catalog.describe_postponed", object=name, error=str(error))

    async def refresh(self, name: str) -> bool:
        """Read an object's description and take over what changed; True if anything did.

        Raises:
            TransientError, LoginRefused: As the org's client.
        """
        async with self._locks[name]:
            try:
                raw = await self._org.describe(name, Purpose.CATCH_UP)
                described = _trimmed(raw)
                spec = _named(name, object_spec(described, self._wanted[name]))
            except OrgRefused as error:
                self._trouble(name, f"the org does not describe it: {error}")
                return False
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                self._trouble(name, f"its description cannot be used: {error}")
                return False
            self.problems.pop(name, None)
            changed, reread = await self._replica.run(lambda unit: self._take_over(unit, spec, described))
            if reread:
                self._on_reread(name)
            return changed

    async def resolve(self, name: str, unknown: frozenset[str]) -> bool:
        """An event showed fields that are not described; True if the description has changed since.

        What stays unknown after a reading is not asked for again before the next regular one.
        """
        unresolved = self._unresolved.setdefault(name, set())
        if not unknown - unresolved or name not in self._locks:
            return False
        now_s = asyncio.get_running_loop().time()
        earlier = self._resolved_s.setdefault(name, deque(maxlen=REFRESHES_AT_ONCE))
        if len(earlier) == REFRESHES_AT_ONCE and now_s - earlier[0] < REFRESH_AT_MOST_EVERY_S:
            return False
        earlier.append(now_s)
        log.info("catalog.unknown_fields_seen", object=name, fields=sorted(unknown - unresolved)[:20])
        changed = await self.refresh(name)
        if len(unresolved) < MAX_UNRESOLVED:
            unresolved |= unknown
        return changed

    def _trouble(self, name: str, problem: str) -> None:
        self.problems[name] = problem
        log.error("catalog.object_unusable", object=name, problem=problem)

    def _restore(self, unit: Unit) -> None:
        specs: dict[str, ObjectSpec] = {}
        for name in self._wanted:
            spec = stored_spec(unit, name)
            if spec is not None:
                unit.define(spec)
                specs[name] = spec
        self._use(specs)

    def _take_over(self, unit: Unit, spec: ObjectSpec, described: Mapping[str, Any]) -> tuple[bool, bool]:
        """Make the table fit; whether anything changed, and whether rows lack values now."""
        columns = {f.name: f.kind for f in spec.fields}
        stored = _stored(unit, spec.name)
        document = orjson.dumps({"describe": described, "columns": columns}).decode()
        if stored is not None and spec.name in self._specs and document == orjson.dumps(stored).decode():
            return False, False
        unit.define(spec)
        unit.set_cursor(_cursor(spec.name), document, self._now_ms())
        old: Mapping[str, str] = stored["columns"] if stored else {}
        fresh = [name for name, kind in columns.items() if old.get(name) != kind]
        reread = stored is not None and bool(fresh) and self._read_again(unit, spec.name, fresh)
        if spec.missing:
            log.warning("catalog.fields_missing", object=spec.name, fields=list(spec.missing))
        log.info(
            "catalog.object_described",
            object=spec.name,
            fields=len(columns),
            new=fresh if stored else [],
            gone=[name for name in old if name not in columns],
        )
        specs = {**self._specs, spec.name: spec}
        # In the order of the settings, whichever is described first: it is that of the loads.
        self._use({name: specs[name] for name in self._wanted if name in specs})
        return True, reread

    def _read_again(self, unit: Unit, name: str, fields: Sequence[str]) -> bool:
        state = LoadState.stored(unit, name)
        if state is None:
            return False
        state.reread(fields).store(unit, name, self._now_ms())
        return True


def stored_spec(unit: Unit, name: str) -> ObjectSpec | None:
    """The object as it was described last, or None; known without the org.

    By the columns of that time: what the settings have changed since comes with the next description.
    """
    stored = _stored(unit, name)
    return None if stored is None else object_spec(stored["describe"], list(stored["columns"]))


def _named(name: str, spec: ObjectSpec) -> ObjectSpec:
    if spec.name != name:
        raise ValueError(f"the org spells it {spec.name}")
    return spec


def _cursor(name: str) -> str:
    return f"describe:{name}"


def _stored(unit: Unit, name: str) -> dict[str, Any] | None:
    text = unit.cursor(_cursor(name))
    if text is None:
        return None
    document: dict[str, Any] = orjson.loads(text)
    return document


def _trimmed(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The members that `object_spec` reads, so that the stored description stays small and comparable."""
    fields = []
    for field in raw["fields"]:
        kept = {key: field[key] for key in _FIELD_KEYS if key in field}
        if field.get("restrictedPicklist"):
            values = field.get("picklistValues") or ()
            kept["picklistValues"] = [{"value": v["value"], "active": v.get("active", True)} for v in values]
        fields.append(kept)
    return {**{key: raw.get(key) for key in _OBJECT_KEYS}, "fields": fields}
