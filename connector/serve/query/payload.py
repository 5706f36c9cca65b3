"""The JSON of a query as services publish it, by verb; section 4 of the interface."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from connector.model.documents import told
from connector.model.query import EVERYTHING, Where
from connector.model.where import parse_where
from connector.serve.request import Refused, Request, invalid

_MAX_VERSION = 2**63 - 1

FieldNames = Annotated[
    list[Annotated[str, Field(max_length=80)]], Field(max_length=1000, description="Values to return; all without it.")
]


class _Filtered(Request):
    where: dict[str, Any] | None = Field(
        None,
        description="{Field: value} is equality, {Field: {operator: value}} one of eq, ne, gt, gte, lt, lte, in, like, "
        "is_null; and, or: lists of conditions; not: a condition. All members must hold.",
    )

    @field_validator("where")
    @classmethod
    def _of_the_right_form(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None:
            parse_where(value)
        return value

    def condition(self) -> Where:
        """`where` as a condition."""
        return EVERYTHING if self.where is None else parse_where(self.where)


class _Paged(Request):
    limit: int | None = Field(None, ge=1, description="Records at most; never more than query.max_page.")
    after: str | None = Field(None, min_length=1, description="`next` of the page before.")
    order_by: str | None = Field(None, max_length=100, description="`Field`, `Field asc` or `Field desc`; else by Id.")
    fields: FieldNames | None = None


class GetQuery(Request):
    """`get`: one record."""

    id: str = Field(description="15 or 18 characters.")
    fields: FieldNames | None = None


class ListQuery(_Paged):
    """`list`: all records, page by page."""


class SearchQuery(_Filtered, _Paged):
    """`search`: records by text, by a condition, or by both."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [told("text"), told("where")]})

    text: str | None = Field(None, min_length=1, max_length=1000)

    @model_validator(mode="after")
    def _for_something(self) -> Self:
        if self.text is None and self.where is None:
            raise ValueError("expected text or where")
        return self


class CountQuery(_Filtered):
    """`count`: how many records."""

    text: str | None = Field(None, min_length=1, max_length=1000)


class ChangesQuery(Request):
    """`changes`: what the change log holds behind a version."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [told("since"), told("id")]})

    since: int | None = Field(
        None, ge=0, le=_MAX_VERSION, description="Version of the last change that the asker has; needed without `id`."
    )
    limit: int | None = Field(None, ge=1, description="Changes at most; never more than query.max_page.")
    id: str | None = Field(None, description="Of this record alone, as far back as the log reaches; not with `_all`.")

    @model_validator(mode="after")
    def _since_or_id(self) -> Self:
        if self.since is None and self.id is None:
            raise ValueError("expected since")
        return self


class DescribeQuery(Request):
    """`describe`: the tables that the objects have; what a mirror makes its own of."""

    limit: int | None = Field(None, ge=1, description="Objects at most; never more than query.max_page.")
    after: str | None = Field(None, min_length=1, max_length=80, description="`next` of the page before.")


QueryPayload = GetQuery | ListQuery | SearchQuery | CountQuery | ChangesQuery | DescribeQuery
QUERIES: Mapping[str, type[QueryPayload]] = {
    "get": GetQuery,
    "list": ListQuery,
    "search": SearchQuery,
    "count": CountQuery,
    "changes": ChangesQuery,
    "describe": DescribeQuery,
}


def validated(verb: str, fields: Mapping[str, Any], problem: str | None) -> QueryPayload:
    """The query that a payload is; `problem` is what is wrong with it as JSON.

    Raises:
        Refused: With every wrong member.
    """
    if problem is not None:
        raise Refused("invalid_request", problem)
    try:
        return QUERIES[verb].model_validate(fields)
    except ValidationError as error:
        raise invalid(error) from None
