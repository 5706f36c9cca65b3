"""Bulk API 2.0 jobs: what their answers say.

Source: Bulk API 2.0 and Bulk API Developer Guide, "Query Jobs", "Ingest Jobs".
"""

import codecs
import csv
from collections.abc import Iterator, Mapping
from io import StringIO
from itertools import chain
from typing import Any

from connector.errors import LinkDown
from connector.ports import BulkJob, BulkPage
from connector.salesforce.answers import clock_ms

# Few large pages: each is an API call. The widest rows still make a page of some ten megabytes.
ROWS_PER_PAGE = 10_000

_NO_MORE = "null"
_LONGEST_VALUE = 1 << 24
# The module's own bound of 131,072 characters is less than a rich text area may hold.
csv.field_size_limit(_LONGEST_VALUE)


class CsvPage:
    """Reads one page of a result while it arrives."""

    def __init__(self) -> None:
        self._columns: list[str] = []
        self._rows: list[list[str]] = []

    def read(self, chunks: Iterator[bytes]) -> None:
        """Take the body. A page without rows is a header line, or nothing at all.

        Raises:
            LinkDown: It is not CSV of even rows.
        """
        try:
            reader = csv.reader(_lines(chunks), strict=True)
            self._columns = next(reader, [])
            self._rows = list(filter(None, reader))
        except (csv.Error, UnicodeDecodeError) as error:
            raise LinkDown("a page of a Bulk result that is not CSV") from error
        if not {len(self._columns)}.issuperset(map(len, self._rows)):
            raise LinkDown("a page of a Bulk result with a row that is too short or too long")

    def page(self, headers: Mapping[str, str]) -> BulkPage:
        """The page with the locator that came with it.

        Raises:
            LinkDown: Fewer rows came than the org says it sent.
        """
        told = headers.get("Sforce-NumberOfRecords", "")
        if told.isascii() and told.isdigit() and int(told) != len(self._rows):
            raise LinkDown(f"a page of a Bulk result with {len(self._rows)} of {told} rows")
        locator = headers.get("Sforce-Locator", _NO_MORE)
        return BulkPage(self._columns, self._rows, None if locator in ("", _NO_MORE) else locator)


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    """Lines with their ends, cut at LF alone: values may hold any other separator. NULs are taken out."""
    return chain.from_iterable(StringIO(text, newline="\n") for text in _whole_lines(chunks))


def _whole_lines(chunks: Iterator[bytes]) -> Iterator[str]:
    """The text, cut behind ends of lines only."""
    rest = ""
    for text in codecs.iterdecode(chunks, "utf-8"):
        whole, end, new = text.replace("\0", "").rpartition("\n")
        if end:
            yield f"{rest}{whole}\n"
            rest = new
        else:
            rest += new
    yield rest


def job(value: Any, headers: Mapping[str, str]) -> BulkJob:
    """A job as the org describes it, in an answer with these headers.

    Raises:
        LinkDown: It has no id or state.
    """
    try:
        error, count = value.get("errorMessage"), value.get("numberRecordsProcessed")
        return BulkJob(
            id=str(value["id"]),
            state=str(value["state"]),
            error=str(error) if error else None,
            processed_count=count if isinstance(count, int) else None,
            server_ms=clock_ms(headers),
        )
    except (AttributeError, KeyError, TypeError) as wrong:
        raise LinkDown("a Bulk job without id or state") from wrong
