"""Values the org works out by itself: defaults, composed names, what follows from an opportunity's stage.

Source: Object Reference for the Salesforce Platform, "Contact", "Lead", "Opportunity".
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from connector.devorg.objects.fields import ObjectSchema


@dataclass(frozen=True, slots=True)
class Stage:
    """What an opportunity stage brings along."""

    probability: float
    forecast: str
    closed: bool = False
    won: bool = False


STAGES: Mapping[str, Stage] = {
    "Prospecting": Stage(10.0, "Pipeline"),
    "Qualification": Stage(10.0, "Pipeline"),
    "Needs Analysis": Stage(20.0, "Pipeline"),
    "Value Proposition": Stage(50.0, "Pipeline"),
    "Id. Decision Makers": Stage(60.0, "Pipeline"),
    "Perception Analysis": Stage(70.0, "Pipeline"),
    "Proposal/Price Quote": Stage(75.0, "Pipeline"),
    "Negotiation/Review": Stage(90.0, "Pipeline"),
    "Closed Won": Stage(100.0, "Closed", closed=True, won=True),
    "Closed Lost": Stage(0.0, "Omitted", closed=True),
}
_UNKNOWN_STAGE = Stage(0.0, "Pipeline")
_FORECAST_CODES = {"Best Case": "BestCase", "Commit": "Forecast"}
_MONTHS_PER_QUARTER = 3


def defaults(schema: ObjectSchema, user_id: str) -> dict[str, Any]:
    """Return the values a new record has where its maker names none."""
    values: dict[str, Any] = {}
    for field in schema.stored:
        default = field.default_value
        if default is None and field.type == "picklist":
            entries = field.raw["picklistValues"]
            default = next((entry["value"] for entry in entries if entry["defaultValue"]), None)
        values[field.name] = False if field.type == "boolean" and default is None else default
    if "OwnerId" in values:
        values["OwnerId"] = user_id
    if "CleanStatus" in values:
        values["CleanStatus"] = "Pending"
    if "RecordTypeId" in values:
        types = schema.raw["recordTypeInfos"]
        values["RecordTypeId"] = next((i["recordTypeId"] for i in types if i["defaultRecordTypeMapping"]), None)
    return values


def derive(
    schema: ObjectSchema,
    row: dict[str, Any],
    written: Collection[str],
    before: Mapping[str, Any] | None,
) -> None:
    """Set in `row` what follows from its other values; a custom object's record without a name is named by its id.

    Args:
        schema: The object.
        row: The record as it will be stored; changed in place.
        written: Names of the fields this write brings.
        before: The record as it was, None on create.
    """
    if schema.parts("Name"):
        row["Name"] = " ".join(filter(None, (row.get("FirstName"), row.get("LastName"))))
    elif schema.raw["custom"] and "Name" in schema.fields and row["Name"] is None:
        row["Name"] = row["Id"]
    if "PhotoUrl" in schema.fields:
        row["PhotoUrl"] = f"/services/images/photo/{row['Id']}"
    if schema.name == "Opportunity":
        _derive_opportunity(row, written)
        if before is not None and before["StageName"] != row["StageName"]:
            row["LastStageChangeDate"] = row["LastModifiedDate"]


def _derive_opportunity(row: dict[str, Any], written: Collection[str]) -> None:
    stage = STAGES.get(row["StageName"] or "", _UNKNOWN_STAGE)
    if "StageName" in written:
        # What the writer names wins over what the stage would bring; an unknown stage keeps what is there.
        known = row["StageName"] in STAGES
        if "Probability" not in written and (known or row["Probability"] is None):
            row["Probability"] = stage.probability
        if "ForecastCategoryName" not in written and (known or row["ForecastCategoryName"] is None):
            row["ForecastCategoryName"] = stage.forecast
        row["IsClosed"], row["IsWon"] = stage.closed, stage.won
    forecast = row["ForecastCategoryName"]
    row["ForecastCategory"] = _FORECAST_CODES.get(forecast, forecast)
    amount, probability = row["Amount"], row["Probability"]
    expected = None if amount is None else round(amount * (probability or 0.0) / 100, 2)
    row["ExpectedRevenue"] = expected
    row |= _fiscal(row["CloseDate"])


def _fiscal(close_date: str | None) -> dict[str, Any]:
    """Return the fiscal period of a close date; the fiscal year is the calendar year."""
    if close_date is None:
        return {"Fiscal": None, "FiscalYear": None, "FiscalQuarter": None}
    day = date.fromisoformat(close_date)
    quarter = (day.month - 1) // _MONTHS_PER_QUARTER + 1
    return {"Fiscal": f"{day.year} {quarter}", "FiscalYear": day.year, "FiscalQuarter": quarter}
