"""What an administrator of the org may set up: validation rules, duplicate rules, automation, locked records.

They are ordered through the admin interface, so that a test can have the org refuse or change a write on purpose.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from connector.devorg.errors import OrgError

_TESTS: Mapping[str, Callable[[Any, Any], bool]] = {
    "is": lambda actual, wanted: bool(actual == wanted),
    "is_not": lambda actual, wanted: bool(actual != wanted),
    "contains": lambda actual, wanted: isinstance(actual, str) and str(wanted) in actual,
    "above": lambda actual, wanted: actual is not None and bool(actual > wanted),
    "below": lambda actual, wanted: actual is not None and bool(actual < wanted),
}
_MAX_RULES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Holds for a record whose `field` passes `test` against `value`: is, is_not, contains, above, below."""

    field: str
    test: str = "is"
    value: Any = None

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Tell whether the condition holds for the record."""
        return _TESTS[self.test](row.get(self.field), self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationRule:
    """Refuses a record for which `when` holds; `field` is where the error is shown, None for the page."""

    object: str
    when: Condition
    message: str
    field: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateRule:
    """Refuses a record that agrees with another in all of `fields`; the writer may overrule it if `allow_save`."""

    object: str
    fields: tuple[str, ...]
    allow_save: bool = True
    name: str = "Standard_Duplicate_Rule"
    message: str = "Use one of these records?"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldUpdate:
    """Automation: a record for which `when` holds after a write has `values` set in the same transaction."""

    object: str
    values: Mapping[str, Any]
    when: Condition | None = None


class Matches(Protocol):
    """Finds records for duplicate rules."""

    def __call__(self, object_name: str, values: Mapping[str, Any]) -> list[str]:
        """Return ids of the live records that agree in all `values`."""
        ...


@dataclass(slots=True)
class Rules:
    """Everything ordered, in the order it was ordered.

    Attributes:
        locked: Ids of records that somebody else's transaction keeps locked.
    """

    validation: list[ValidationRule] = field(default_factory=list)
    duplicates: list[DuplicateRule] = field(default_factory=list)
    updates: list[FieldUpdate] = field(default_factory=list)
    locked: set[str] = field(default_factory=set)

    def order(self, kind: str, body: Mapping[str, Any]) -> None:
        """Take an order of the admin interface: `validation`, `duplicate`, `update` or `lock` with its members.

        Raises:
            ValueError: The kind or its members are not understood, or too much is ordered already.
        """
        count = len(self.validation) + len(self.duplicates) + len(self.updates) + len(self.locked)
        if count >= _MAX_RULES:
            raise ValueError(f"more than {_MAX_RULES} rules")
        try:
            self._add(kind, dict(body))
        except (KeyError, TypeError) as error:
            raise ValueError(f"{kind}: {error}") from None

    def _add(self, kind: str, body: dict[str, Any]) -> None:
        if isinstance(body.get("when"), Mapping):
            body["when"] = _condition(body["when"])
        if kind == "validation":
            self.validation.append(ValidationRule(**body))
        elif kind == "duplicate":
            self.duplicates.append(DuplicateRule(**{**body, "fields": tuple(body["fields"])}))
        elif kind == "update":
            self.updates.append(FieldUpdate(**body))
        elif kind == "lock":
            self.locked.add(str(body["id"]))
        else:
            raise ValueError(f"no such rule: {kind!r}")

    def clear(self) -> None:
        """Forget all of them."""
        for ordered in (self.validation, self.duplicates, self.updates, self.locked):
            ordered.clear()

    def automation(self, object_name: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that automation sets on a record after a write."""
        values: dict[str, Any] = {}
        for rule in self.updates:
            if rule.object == object_name and (rule.when is None or rule.when.holds(row)):
                values |= rule.values
        return values

    def check(self, object_name: str, row: Mapping[str, Any]) -> None:
        """Check a record against the validation rules.

        Raises:
            OrgError: 400 FIELD_CUSTOM_VALIDATION_EXCEPTION.
        """
        for rule in self.validation:
            if rule.object == object_name and rule.when.holds(row):
                fields = [] if rule.field is None else [rule.field]
                raise OrgError(400, "FIELD_CUSTOM_VALIDATION_EXCEPTION", rule.message, fields)

    def check_duplicates(self, object_name: str, row: Mapping[str, Any], find: Matches, *, allow_save: bool) -> None:
        """Check a record against the duplicate rules; `allow_save` is the writer's word to save all the same.

        Raises:
            OrgError: 400 DUPLICATES_DETECTED with the matches.
        """
        for rule in self.duplicates:
            if rule.object != object_name or (allow_save and rule.allow_save):
                continue
            values = {name: row.get(name) for name in rule.fields}
            if None in values.values():
                continue
            found = [record_id for record_id in find(object_name, values) if record_id != row["Id"]]
            if found:
                raise _duplicates_detected(rule, found)


def _condition(body: Mapping[str, Any]) -> Condition:
    condition = Condition(**body)
    if condition.test not in _TESTS:
        raise ValueError(f"no such test: {condition.test!r}")
    return condition


def _duplicates_detected(rule: DuplicateRule, found: list[str]) -> OrgError:
    """Return the error with its matches under the name Salesforce misspells.

    Source: salesforce answers seen with `duplicateResut` on many API versions.
    """
    records = [
        {
            "additionalInformation": [],
            "fieldDiffs": [],
            "matchConfidence": 100.0,
            "record": {"attributes": {"type": rule.object}, "Id": record_id},
        }
        for record_id in found
    ]
    match = {
        "entityType": rule.object,
        "errors": [],
        "matchEngine": "ExactMatchEngine",
        "matchRecords": records,
        "rule": rule.name,
        "size": len(records),
        "success": True,
    }
    result = {
        "allowSave": rule.allow_save,
        "duplicateRule": rule.name,
        "duplicateRuleEntityType": rule.object,
        "errorMessage": rule.message,
        "matchResults": [match],
    }
    return OrgError(400, "DUPLICATES_DETECTED", rule.message, [], {"duplicateResut": result})
