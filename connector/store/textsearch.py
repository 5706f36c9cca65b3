"""Full-text search: which records have the words, the best fit first."""

import unicodedata
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import apsw
import orjson

from connector.errors import SearchNotReady
from connector.model.objects import ObjectColumns
from connector.store.columns import from_json, to_json
from connector.store.names import quoted, text_index
from connector.store.queries import load

_SQL = load("objects")
# Beyond so many records a rank says little and takes long: they come in the order in which the replica got them.
MAX_RANKED = 2000
_MARK = "text"


@dataclass(frozen=True, slots=True)
class Match:
    """A record that has the words.

    Attributes:
        rank: The lower the better; None where the matches are not ranked.
    """

    rank: float | None
    rowid: int

    def position(self) -> str:
        """What `after` must be to go on behind it."""
        return urlsafe_b64encode(to_json([_MARK, self.rank, self.rowid]).encode()).decode().rstrip("=")


def expression(text: str) -> str | None:
    """The words of a text as an FTS5 query: all of them, each the beginning of a word; None if there are none.

    What looks like an operator is text. A word with signs in it (`jane@example.com`) is a phrase of its parts.
    """
    words = [word for word in text.replace("\0", " ").split() if any(map(_in_a_word, word))]
    return " ".join('"' + word.replace('"', '""') + '"*' for word in words) or None


def require_ready(connection: apsw.Connection, columns: ObjectColumns) -> None:
    """Check that the object's text index is whole.

    Raises:
        SearchNotReady: It is still being made.
    """
    ((state, _),) = connection.execute(_SQL["search_state"], (columns.name,)).fetchall()
    if state != "ready" and columns.searched:
        raise SearchNotReady(f"the text index of {columns.name} is being made; search again in a while")


def text_condition(columns: ObjectColumns) -> str:
    """The SQL of records that have the words of the expression bound as `text`."""
    index = quoted(text_index(columns.table))
    return f"rowid IN (SELECT rowid FROM {index} WHERE {index} MATCH :text)"  # noqa: S608 - a name that was checked


def matches(connection: apsw.Connection, columns: ObjectColumns, words: str, after: str | None) -> Iterator[Match]:
    """The records that have the words, behind the one that `after` stands for; deleted records among them.

    Raises:
        ValueError: `after` is of another list.
    """
    if after is not None:
        behind = _unpacked(after)
    else:
        # Ranking even one of them has SQLite go through all that there are: first it is seen whether they are few.
        first = _first(connection, columns, words, MAX_RANKED + 1)
        if len(first) <= MAX_RANKED:
            behind = Match(float("-inf"), 0)
        else:
            yield from (Match(None, rowid) for rowid in first)
            behind = Match(None, first[-1])
    if behind.rank is None:
        yield from _by_rowid(connection, columns, words, behind.rowid)
    else:
        yield from _ranked(connection, columns, words, behind)


def _first(connection: apsw.Connection, columns: ObjectColumns, words: str, limit: int) -> Sequence[int]:
    """The rowids of the first ones, in one row: with each that comes to Python other threads get their turn."""
    index = quoted(text_index(columns.table))
    # A name that was checked; values are bound.
    found = f"SELECT rowid FROM {index} WHERE {index} MATCH :text ORDER BY rowid LIMIT :limit"  # noqa: S608
    listed = connection.execute(f"SELECT json_group_array(rowid) FROM ({found})", {"text": words, "limit": limit}).get  # noqa: S608
    rowids: list[int] = from_json(listed)
    return rowids


def _ranked(connection: apsw.Connection, columns: ObjectColumns, words: str, behind: Match) -> Iterator[Match]:
    index = quoted(text_index(columns.table))
    # A name that was checked; values are bound.
    query = (
        f"SELECT rank, rowid FROM (SELECT rank, rowid FROM {index} WHERE {index} MATCH :text LIMIT :limit) "  # noqa: S608
        "WHERE (rank, rowid) > (:rank, :rowid) ORDER BY rank, rowid"
    )
    bindings = {"text": words, "limit": MAX_RANKED, "rank": behind.rank, "rowid": behind.rowid}
    yield from (Match(float(rank), int(rowid)) for rank, rowid in connection.execute(query, bindings))


def _by_rowid(connection: apsw.Connection, columns: ObjectColumns, words: str, after: int) -> Iterator[Match]:
    index = quoted(text_index(columns.table))
    # A name that was checked; values are bound.
    query = f"SELECT rowid FROM {index} WHERE {index} MATCH :text AND rowid > :after ORDER BY rowid"  # noqa: S608
    yield from (Match(None, int(row[0])) for row in connection.execute(query, {"text": words, "after": after}))


def _in_a_word(char: str) -> bool:
    """Letters, digits and private signs make words. Source: SQLite, "FTS5 Unicode61 Tokenizer"."""
    category = unicodedata.category(char)
    return category[0] in "LN" or category == "Co"


def _unpacked(after: str) -> Match:
    try:
        mark, rank, rowid = orjson.loads(urlsafe_b64decode(after + "=" * (-len(after) % 4)))
    except (ValueError, TypeError) as error:
        raise ValueError("after: not a position of this list") from error
    if mark != _MARK or type(rowid) is not int or abs(rowid) >= 2**63 or type(rank) not in (float, type(None)):
        raise ValueError("after: not a position of this list")
    return Match(rank, rowid)
