"""Full-text search: which records have the words, the best fit first."""

import unicodedata
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass

import apsw
import orjson

from connector.errors import SearchNotReady
from connector.model.objects import ObjectColumns
from connector.store.columns import to_json
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
    behind = (
        Match(float("-inf") if _few(connection, columns, words) else None, 0) if after is None else _unpacked(after)
    )
    if behind.rank is None:
        yield from _by_rowid(connection, columns, words, behind.rowid)
    else:
        yield from _ranked(connection, columns, words, behind)


def _few(connection: apsw.Connection, columns: ObjectColumns, words: str) -> bool:
    """True if they can be ranked: ranking even one of them has SQLite go through all that there are."""
    index = quoted(text_index(columns.table))
    # A name that was checked; values are bound. Counted there: each row that comes to Python lets other threads in.
    query = f"SELECT count(*) FROM (SELECT 1 FROM {index} WHERE {index} MATCH :text LIMIT :limit)"  # noqa: S608
    return int(connection.execute(query, {"text": words, "limit": MAX_RANKED + 1}).get) <= MAX_RANKED


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
