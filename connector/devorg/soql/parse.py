"""Text to tree. A query that was parsed before is not parsed again."""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from connector.devorg.errors import OrgError
from connector.devorg.soql.errors import refused, unexpected
from connector.devorg.soql.tree import (
    Aggregate,
    AllFields,
    Comparison,
    Condition,
    CountRows,
    Item,
    Joined,
    Like,
    Listed,
    Negated,
    Ordering,
    Path,
    Query,
    Value,
)

MOST_CHARACTERS = 100_000
"""Source: SOQL and SOSL Reference, "SOQL Limits"."""

DEEPEST = 100
"""Conditions inside conditions; a bound of this org, since evaluating them recurses."""

_CACHED_CHARACTERS = 4_000
_WHOLE_DIGITS = 18  # more may not fit SQLite's integers
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", '"': '"', "'": "'", "\\": "\\"}


class _Wrong(Exception):
    """A fault found while the tree is built, caught by `_parse`, which has the text to point into."""

    def __init__(self, at: int, message: str) -> None:
        super().__init__(message)
        self.at = at
        self.message = message


def parse(text: str) -> Query:
    """Return the tree of a query.

    Raises:
        OrgError: 400 MALFORMED_QUERY, pointing at the first thing that has no place in the grammar.
    """
    if not text.strip():
        raise OrgError(400, "MALFORMED_QUERY", "A query string has to be specified")
    if len(text) > MOST_CHARACTERS:
        message = f"SOQL statements cannot be longer than {MOST_CHARACTERS} characters."
        raise OrgError(400, "MALFORMED_QUERY", message)
    return _parse_cached(text) if len(text) <= _CACHED_CHARACTERS else _parse(text)


def string_of(text: str, literal: Value) -> str:
    r"""Return the text of a string literal, its escapes undone.

    Raises:
        OrgError: A backslash before anything but `n r t b f " ' \ uXXXX` (400 MALFORMED_QUERY).

    Source: SOQL and SOSL Reference, "Quoted String Escape Sequences".
    """
    return _paired("".join(part for part, _ in _pieces(text, literal, like=False)))


def like_pattern_of(text: str, literal: Value) -> str:
    r"""Return the pattern of a LIKE literal for SQL's LIKE with backslash as its escape.

    `%` and `_` stay wildcards, `\%` and `\_` stand for themselves, and so does every other backslash.
    """
    pieces = _pieces(text, literal, like=True)
    return _paired("".join(f"\\{part}" if escaped and part in "\\%_" else part for part, escaped in pieces))


def _pieces(text: str, literal: Value, *, like: bool) -> list[tuple[str, bool]]:
    raw, pieces, end = str(literal.value), list[tuple[str, bool]](), 0
    for found in _ESCAPE.finditer(raw):
        pieces.append((raw[end : found.start()], False))
        code = found.group(1)
        if len(code) > 1:
            character = chr(int(code[1:], 16))
        elif like and code in "%_":
            character = code
        else:
            character = _ESCAPED.get(code, "")
        if not character:
            note = f"Invalid string literal '{raw}'. Illegal character sequence '\\{code}' in string literal."
            raise refused("MALFORMED_QUERY", text, literal.at, note)
        pieces.append((character, True))
        end = found.end()
    return [*pieces, (raw[end:], False)]


def _paired(text: str) -> str:
    r"""Join surrogates written as `\uD83D\uDE00` to one character; one without its other half has no UTF-8."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@lru_cache(maxsize=512)
def _parse_cached(text: str) -> Query:
    return _parse(text)


def _parse(text: str) -> Query:
    try:
        # Lark's types do not say what the transformer makes of the start rule.
        parts: dict[str, Any] = _parser().parse(text)  # type: ignore[assignment]
    except _Wrong as wrong:
        raise refused("MALFORMED_QUERY", text, wrong.at, wrong.message) from None
    except UnexpectedInput as error:
        raise unexpected(text, _place_of(error, text)) from None
    return Query(text=text, **parts)


def _place_of(error: UnexpectedInput, text: str) -> int:
    if isinstance(error, UnexpectedToken) and error.token.type == "$END":
        return len(text)
    if isinstance(error, UnexpectedToken | UnexpectedCharacters) and error.pos_in_stream is not None:
        return error.pos_in_stream
    return len(text)


@cache
def _parser() -> Lark:
    grammar = files(__package__).joinpath("grammar.lark").read_text("utf-8")
    return Lark(grammar, start="query", parser="lalr", lexer="contextual", transformer=_Tree())


def _at(token: Token) -> int:
    return token.start_pos or 0


class _Tree(Transformer[Token, Any]):
    """Builds the tree while the parser reads, so that no depth of nesting recurses here."""

    # Names of the methods are those of the grammar's rules.
    def query(self, parts: Sequence[Any]) -> dict[str, Any]:
        _, items, _, name, alias, where, order, limit, offset = parts
        count, at = offset or (0, 0)
        return {
            "items": items,
            "object_name": str(name),
            "object_at": _at(name),
            "alias": None if alias is None else str(alias),
            "where": where,
            "order": order or (),
            "limit": None if limit is None else limit[0],
            "offset": count,
            "offset_at": at,
        }

    def items(self, parts: Sequence[Item]) -> tuple[Item, ...]:
        return tuple(parts)

    def field(self, parts: Sequence[Path]) -> Path:
        return parts[0]

    def fields(self, parts: Sequence[Token]) -> AllFields:
        scope = str(parts[1]).upper()
        if scope not in ("ALL", "STANDARD", "CUSTOM"):
            raise _Wrong(_at(parts[1]), f"unexpected token: '{parts[1]}'")
        return AllFields(scope, _at(parts[0]))

    def count_rows(self, parts: Sequence[Token]) -> CountRows:
        return CountRows(_at(parts[0]))

    def aggregate(self, parts: Sequence[Any]) -> Aggregate:
        function, path, alias = parts
        name: Any = str(function).upper()
        return Aggregate(name, path, None if alias is None else str(alias))

    def path(self, parts: Sequence[Token]) -> Path:
        return Path(tuple(str(part) for part in parts), _at(parts[0]))

    def where(self, parts: Sequence[Any]) -> Condition:
        condition: Condition = parts[1]
        return condition

    def group(self, parts: Sequence[Any]) -> Condition:
        condition: Condition = parts[0]
        return condition

    def all_of(self, parts: Sequence[Any]) -> Joined:
        return _joined("AND", parts)

    def any_of(self, parts: Sequence[Any]) -> Joined:
        return _joined("OR", parts)

    def negation(self, parts: Sequence[Any]) -> Negated:
        return Negated(parts[1], _deeper([parts[1]], _at(parts[0])))

    def comparison(self, parts: Sequence[Any]) -> Comparison:
        path, operator, token = parts
        sign: Any = "!=" if operator == "<>" else str(operator)
        return Comparison(path, sign, _value(token))

    def matches(self, parts: Sequence[Any]) -> Like:
        path, _, pattern = parts
        return Like(path, _value(pattern))

    def listed(self, parts: Sequence[Any]) -> Listed:
        path, operator, values = parts
        name: Any = str(operator).upper()
        return Listed(path, name, values)

    def not_in(self, _parts: Sequence[Token]) -> str:
        return "NOT IN"

    def values(self, parts: Sequence[Token]) -> tuple[Value, ...]:
        return tuple(_value(token) for token in parts)

    def order(self, parts: Sequence[Any]) -> tuple[Ordering, ...]:
        return tuple(parts[2:])

    def order_item(self, parts: Sequence[Any]) -> Ordering:
        path, direction, _, nulls = parts
        return Ordering(
            path,
            descending=direction is not None and direction.type == "DESC",
            nulls_last=nulls is not None and nulls.type == "LAST",
        )

    def limit(self, parts: Sequence[Token]) -> tuple[int, int]:
        return _count(parts[1]), _at(parts[1])

    def offset(self, parts: Sequence[Token]) -> tuple[int, int]:
        return _count(parts[1]), _at(parts[1])


def _joined(operator: Any, parts: Sequence[Any]) -> Joined:
    conditions = tuple(part for part in parts if not isinstance(part, Token))
    first = next(part for part in parts if isinstance(part, Token))
    return Joined(operator, conditions, _deeper(conditions, _at(first)))


def _deeper(parts: Sequence[Condition], at: int) -> int:
    depth = 1 + max(part.depth for part in parts)
    if depth > DEEPEST:
        raise _Wrong(at, "The WHERE clause is nested too deeply")
    return depth


def _value(token: Token) -> Value:
    at, text = _at(token), str(token)
    match token.type:
        case "STRING":
            return Value("string", text[1:-1], at)
        case "NUMBER":
            whole = not set(text) & set(".eE") and len(text) <= _WHOLE_DIGITS
            return Value("number", int(text) if whole else float(text), at)
        case "TRUE" | "FALSE":
            return Value("boolean", token.type == "TRUE", at)
        case "DATE":
            return Value("date", _date(text, at), at)
        case "DATETIME":
            return Value("datetime", _utc(text, at), at)
        case _:
            return Value("null", None, at)


def _count(token: Token) -> int:
    return int(token) if len(token) <= _WHOLE_DIGITS else 10**_WHOLE_DIGITS


def _date(text: str, at: int) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise _Wrong(at, f"Invalid date: {text}") from None


def _utc(text: str, at: int) -> str:
    """Return a datetime literal as the org stores it, UTC with milliseconds."""
    try:
        moment = datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _Wrong(at, f"Invalid datetime: {text}") from None
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z"
