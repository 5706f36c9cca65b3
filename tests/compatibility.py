"""Does everything that fits one JSON Schema fit another? For the keywords that schemas/ uses; a new one is an error.

A change of a published document is harmless if whatever is published now fits the schema of before, one of an accepted
document if whatever was accepted then is accepted now. Both are the same question, asked in opposite directions.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Schema = Mapping[str, Any]

_SAYS_NOTHING = {"$schema", "$id", "$comment", "$defs", "title", "description", "default", "examples", "readOnly"}
_AT_LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_AT_MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_KNOWN = {
    *_SAYS_NOTHING,
    *_AT_LEAST,
    *_AT_MOST,
    *("$ref", "anyOf", "oneOf", "not", "type", "enum", "const", "pattern", "format"),
    *("properties", "required", "additionalProperties", "items", "uniqueItems"),
}


@dataclass(frozen=True)
class _Document:
    """A schema with what its references lead to."""

    root: Schema

    def parts(self, schema: Schema) -> list[Schema]:
        """The alternatives of a schema, references followed; beside them its own keywords count for each."""
        unknown = schema.keys() - _KNOWN
        if unknown:
            raise NotImplementedError(f"keywords that are not compared: {sorted(unknown)}")
        if "$ref" in schema:
            return self.parts(self.root["$defs"][schema["$ref"].removeprefix("#/$defs/")])
        if "anyOf" in schema and "properties" not in schema:
            return [part for choice in schema["anyOf"] for part in self.parts(choice)]
        if isinstance(schema.get("type"), list):
            return [{**schema, "type": name} for name in schema["type"]]
        return [schema]


def misfits(inner: Schema, outer: Schema) -> list[str]:
    """Why something may fit `inner` and not `outer`, one line each; empty: whatever fits `inner` fits `outer`."""
    return list(_misfits(_Document(inner), inner, _Document(outer), outer, "payload"))


def _misfits(inner: _Document, narrow: Schema, outer: _Document, wide: Schema, at: str) -> Iterator[str]:
    choices = outer.parts(wide)
    for part in inner.parts(narrow):
        tried = [list(_against(inner, part, outer, choice, at)) for choice in choices]
        if all(tried):
            yield from min(tried, key=len)


def _against(inner: _Document, narrow: Schema, outer: _Document, wide: Schema, at: str) -> Iterator[str]:
    yield from _values(narrow, wide, at)
    yield from _bounds(narrow, wide, at)
    yield from _same(narrow, wide, at)
    yield from _object(inner, narrow, outer, wide, at)
    if "items" in wide:
        yield from _misfits(inner, narrow.get("items", {}), outer, wide["items"], f"{at}[]")


def _values(narrow: Schema, wide: Schema, at: str) -> Iterator[str]:
    types = {narrow.get("type"), *(["number"] if narrow.get("type") == "integer" else [])}
    if "type" in wide and wide["type"] not in types:
        yield f"{at}: {narrow.get('type', 'anything')} instead of {wide['type']}"
    allowed = _listed(wide)
    listed = _listed(narrow)
    if allowed is not None and (listed is None or any(value not in allowed for value in listed)):
        new = "anything" if listed is None else [value for value in listed if value not in allowed]
        yield f"{at}: {new} beside {allowed}"


def _listed(schema: Schema) -> Sequence[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _bounds(narrow: Schema, wide: Schema, at: str) -> Iterator[str]:
    for keyword in (*_AT_LEAST, *_AT_MOST):
        if keyword not in wide:
            continue
        bound = narrow.get(keyword)
        beyond = bound is None or (bound < wide[keyword] if keyword in _AT_LEAST else bound > wide[keyword])
        if beyond:
            yield f"{at}: {keyword} {bound} instead of {wide[keyword]}"


def _same(narrow: Schema, wide: Schema, at: str) -> Iterator[str]:
    """Keywords of which it is not known what lies within what: equal, or not there in the wider one."""
    beside = ["anyOf"] if "properties" in wide else []
    for keyword in ("pattern", "format", "oneOf", "not", "uniqueItems", *beside):
        listed = _listed(narrow)
        if keyword in wide and narrow.get(keyword) != wide[keyword] and not (keyword == "pattern" and listed):
            yield f"{at}: {keyword} {narrow.get(keyword)} instead of {wide[keyword]}"


def _object(inner: _Document, narrow: Schema, outer: _Document, wide: Schema, at: str) -> Iterator[str]:
    for name in sorted(set(wide.get("required", ())) - set(narrow.get("required", ()))):
        yield f"{at}.{name}: may be missing"
    told, known = narrow.get("properties", {}), wide.get("properties", {})
    others = narrow.get("additionalProperties", True)
    for name, schema in known.items():
        if name in told:
            yield from _misfits(inner, told[name], outer, schema, f"{at}.{name}")
        elif others is not False:
            yield f"{at}.{name}: is gone"
    closed = wide.get("additionalProperties", True)
    if closed is False:
        for name in sorted(told.keys() - known.keys()):
            yield f"{at}.{name}: is not known"
        if others is not False:
            yield f"{at}: may have any member"
    elif isinstance(closed, Mapping):
        rest = others if isinstance(others, Mapping) else ({} if others else {"not": {}})
        if others is not False:
            yield from _misfits(inner, rest, outer, closed, f"{at}.*")
