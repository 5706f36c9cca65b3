"""Refusals of a query, with the excerpt and pointer that Salesforce puts before the message."""

import re

from connector.devorg.errors import OrgError

_REACH = 40
_WORD = re.compile(r"'(?:[^'\\]|\\.)*'|[A-Za-z0-9_.]+|\S", re.DOTALL)


def refused(code: str, text: str, at: int, message: str) -> OrgError:
    """Return the 400 answer for a fault at offset `at` of the query `text`.

    The message begins with whole words of the query around the fault, a caret below it, and its row and column.

    Source: recorded error bodies of the query resource.
    """
    line_start = text.rfind("\n", 0, at) + 1
    row = text.count("\n", 0, at) + 1
    column = at - line_start
    excerpt, caret = _excerpt(text[line_start:].partition("\n")[0], column)
    pointer = f"\n{excerpt}\n{' ' * caret}^\nERROR at Row:{row}:Column:{column + 1}\n"
    return OrgError(400, code, pointer + message)


def unexpected(text: str, at: int) -> OrgError:
    """Return the refusal of what stands at offset `at`, where the grammar has no place for it."""
    word = _WORD.search(text, at)
    if word is None:
        return refused("MALFORMED_QUERY", text, len(text), "unexpected token: '<EOF>'")
    if word.group() == "'":
        note = f"line 1:{at} mismatched character '<EOF>' expecting '''"
        return refused("MALFORMED_QUERY", text, at, note)
    return refused("MALFORMED_QUERY", text, word.start(), f"unexpected token: '{word.group()}'")


def no_such_column(text: str, at: int, column: str, entity: str) -> OrgError:
    """Return the refusal of a field that the object does not have."""
    return refused(
        "INVALID_FIELD",
        text,
        at,
        f"No such column '{column}' on entity '{entity}'. If you are attempting to use a custom field, be sure to"
        " append the '__c' after the custom field name. Please reference your WSDL or the describe call for the"
        " appropriate names.",
    )


def no_such_relationship(text: str, at: int, relationship: str) -> OrgError:
    """Return the refusal of a path whose first part leads nowhere."""
    return refused(
        "INVALID_FIELD",
        text,
        at,
        f"Didn't understand relationship '{relationship}' in field path. If you are attempting to use a custom"
        " relationship, be sure to append the '__r' after the custom relationship name. Please reference your WSDL"
        " or the describe call for the appropriate names.",
    )


def no_such_object(text: str, at: int, name: str) -> OrgError:
    """Return the refusal of an object that the org does not have."""
    return refused(
        "INVALID_TYPE",
        text,
        at,
        f"sObject type '{name}' is not supported. If you are attempting to use a custom object, be sure to append"
        " the '__c' after the entity name. Please reference your WSDL or the describe call for the appropriate"
        " names.",
    )


def _excerpt(line: str, column: int) -> tuple[str, int]:
    """Cut whole words out of `line` around `column`; return them with the column's place in them."""
    start, end = max(0, column - _REACH), min(len(line), column + _REACH)
    if start:
        blank = line.find(" ", start - 1, column)
        start = column if blank < 0 else blank + 1
    if end < len(line):
        blank = line.rfind(" ", column, end + 1)
        end = blank if blank > column else end
    return line[start:end], column - start
