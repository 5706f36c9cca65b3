from collections.abc import Mapping, Sequence
from typing import Any


class OrgError(Exception):
    """An answer of the org that refuses a call or one record of it.

    Attributes:
        status: HTTP status where the error is the whole answer.
        code: Salesforce's `errorCode` (`statusCode` in composite items).
        message: Text for people; Salesforce's wording where it is known.
        fields: API names concerned; None where Salesforce leaves the member out.
        extra: Further members of the error object, for instance the matches of a duplicate rule.

    Source: REST API Developer Guide, "Status Codes and Error Responses".
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        fields: Sequence[str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.fields = None if fields is None else list(fields)
        self.extra = dict(extra or {})

    def body(self) -> list[dict[str, Any]]:
        """Return the REST error array."""
        error: dict[str, Any] = {"message": self.message, "errorCode": self.code}
        if self.fields is not None:
            error["fields"] = self.fields
        return [error | self.extra]

    def item(self) -> dict[str, Any]:
        """Return the error as an item of a composite answer, where the code is named `statusCode`."""
        error = {"statusCode": self.code, "message": self.message, "fields": self.fields or []}
        return error | self.extra
