"""Full-text search: which records have the words, the best fit first."""

import unicodedata
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from heapq import merge

import apsw
import orjson

from connector.errors import SearchNotReady
from connector.model.objects import ObjectColumns
from connector.store.columns import from_json, to_json
from connector.store.filters import Bindings
from connector.store.names import quoted, text_index
from connector.store.queries import load
from connector.store.textindex import TOKENIZER, listed

_SQL = load("objects")
# Above every rank: SQLite's are below 0, by some tens at most.
_BEHIND_ALL = 1000.0
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


def text_condition(connection: apsw.Connection, columns: ObjectColumns, words: str, bindings: Bindings) -> str:
    """The SQL of records that have the words of the expression; its values are added to `bindings`."""
    late = _late(connection, columns, words)
    bindings |= late.bindings(words)
    in_index = f"rowid IN ({_rowids(columns, late)})"
    beside = "rowid IN (SELECT value FROM json_each(:found))"
    return f"({in_index} OR {beside})" if late.found else in_index


def matches(connection: apsw.Connection, columns: ObjectColumns, words: str, after: str | None) -> Iterator[Match]:
    """The records that have the words, behind the one that `after` stands for; deleted records among them.

    Raises:
        ValueError: `after` is of another list.
    """
    late = _late(connection, columns, words)
    if after is not None:
        behind = _unpacked(after)
    else:
        # Ranking even one of them has SQLite go through all that there are: first it is seen whether they are few.
        first = _first(connection, columns, words, late, MAX_RANKED + 1)
        if len(first) <= MAX_RANKED:
            behind = Match(float("-inf"), 0)
        else:
            yield from (Match(None, rowid) for rowid in first)
            behind = Match(None, first[-1])
    if behind.rank is None:
        yield from _by_rowid(connection, columns, words, late, behind.rowid)
    else:
        yield from _ranked(connection, columns, words, late, behind)


@dataclass(frozen=True, slots=True)
class _Late:
    """The rows that the index has not been told of yet.

    Attributes:
        rows: All of them: what the index says of these is out of date.
        ranked: Those that have the words, the best first. They come behind what the index finds: how rare a word is
            among so few says nothing of the others.
    """

    rows: Sequence[int]
    ranked: Sequence[Match]

    @property
    def found(self) -> Sequence[int]:
        """Those that have the words, ascending."""
        return sorted(match.rowid for match in self.ranked)

    def bindings(self, words: str) -> Bindings:
        """What `_rowids` binds, and `found`."""
        return {"text": words, "late": to_json(self.rows), "found": to_json(self.found)}


def _late(connection: apsw.Connection, columns: ObjectColumns, words: str) -> _Late:
    fields = listed(columns)
    # Names that were checked; so below.
    texts = (
        f"SELECT late_text.row, {listed(columns, 'record.')} "  # noqa: S608
        f"FROM late_text JOIN {quoted(columns.table)} AS record ON record.rowid = late_text.row "
        "WHERE late_text.object = ?"
    )
    late = connection.execute(texts, (columns.name,)).fetchall()
    if not late:
        return _Late((), ())
    # An index of their own in memory: no other words and no other rules than those of the one on disk.
    with closing(apsw.Connection(":memory:")) as memory:
        memory.execute(f"CREATE VIRTUAL TABLE late USING fts5({fields}, content='', {TOKENIZER})")
        memory.executemany(f"INSERT INTO late (rowid, {fields}) VALUES ({', '.join('?' * len(late[0]))})", late)  # noqa: S608
        found = memory.execute("SELECT rank, rowid FROM late WHERE late MATCH ? ORDER BY rank, rowid", (words,))
        ranked = [Match(_BEHIND_ALL + float(str(rank)), int(str(rowid))) for rank, rowid in found]
    return _Late([int(str(row[0])) for row in late], ranked)


def _rowids(columns: ObjectColumns, late: _Late, wanted: str = "rowid") -> str:
    """The SQL of what the index finds; binds `text` and `late`."""
    index = quoted(text_index(columns.table))
    # A name that was checked; values are bound.
    up_to_date = " AND rowid NOT IN (SELECT value FROM json_each(:late))" if late.rows else ""
    return f"SELECT {wanted} FROM {index} WHERE {index} MATCH :text{up_to_date}"  # noqa: S608


def _first(connection: apsw.Connection, columns: ObjectColumns, words: str, late: _Late, limit: int) -> Sequence[int]:
    """The rowids of the first ones, in one row: with each that comes to Python other threads get their turn."""
    found = f"{_rowids(columns, late)} ORDER BY rowid LIMIT :limit"
    bindings = {**late.bindings(words), "limit": limit}
    rowids = connection.execute(f"SELECT json_group_array(rowid) FROM ({found})", bindings).get  # noqa: S608
    return sorted([*from_json(rowids), *late.found])[:limit]


def _ranked(
    connection: apsw.Connection, columns: ObjectColumns, words: str, late: _Late, behind: Match
) -> Iterator[Match]:
    """The best first, of what is in the index; then of what is not."""
    query = (
        f"SELECT rank, rowid FROM ({_rowids(columns, late, 'rank, rowid')} LIMIT :limit) "  # noqa: S608
        "WHERE (rank, rowid) > (:rank, :rowid) ORDER BY rank, rowid"
    )
    bindings = {**late.bindings(words), "limit": MAX_RANKED, "rank": behind.rank, "rowid": behind.rowid}
    yield from (Match(float(rank), int(rowid)) for rank, rowid in connection.execute(query, bindings))
    start = (behind.rank or 0.0, behind.rowid)
    yield from (match for match in late.ranked if (match.rank or 0.0, match.rowid) > start)


def _by_rowid(
    connection: apsw.Connection, columns: ObjectColumns, words: str, late: _Late, after: int
) -> Iterator[Match]:
    query = f"{_rowids(columns, late)} AND rowid > :after ORDER BY rowid"
    indexed = connection.execute(query, {**late.bindings(words), "after": after})
    beside = (rowid for rowid in late.found if rowid > after)
    yield from (Match(None, rowid) for rowid in merge((int(row[0]) for row in indexed), beside))


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
