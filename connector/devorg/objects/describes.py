"""Complete describe results out of the few members that matter, for objects and fields added at run time."""

from collections.abc import Mapping
from typing import Any

_FIELD: Mapping[str, Any] = {
    "aggregatable": True,
    "aiPredictionField": False,
    "autoNumber": False,
    "byteLength": 0,
    "calculated": False,
    "calculatedFormula": None,
    "cascadeDelete": False,
    "caseSensitive": False,
    "compoundFieldName": None,
    "controllerName": None,
    "createable": True,
    "custom": False,
    "defaultValue": None,
    "defaultValueFormula": None,
    "defaultedOnCreate": False,
    "dependentPicklist": False,
    "deprecatedAndHidden": False,
    "digits": 0,
    "displayLocationInDecimal": False,
    "encrypted": False,
    "externalId": False,
    "extraTypeInfo": None,
    "filterable": True,
    "filteredLookupInfo": None,
    "formulaTreatNullNumberAsZero": False,
    "groupable": True,
    "highScaleNumber": False,
    "htmlFormatted": False,
    "idLookup": False,
    "inlineHelpText": None,
    "label": "",
    "length": 0,
    "mask": None,
    "maskType": None,
    "name": "",
    "nameField": False,
    "namePointing": False,
    "nillable": True,
    "permissionable": True,
    "picklistValues": [],
    "polymorphicForeignKey": False,
    "precision": 0,
    "queryByDistance": False,
    "referenceTargetField": None,
    "referenceTo": [],
    "relationshipName": None,
    "relationshipOrder": None,
    "restrictedDelete": False,
    "restrictedPicklist": False,
    "scale": 0,
    "searchPrefilterable": False,
    "soapType": "xsd:string",
    "sortable": True,
    "type": "string",
    "unique": False,
    "updateable": True,
    "writeRequiresMasterRead": False,
}
_READ_ONLY: Mapping[str, Any] = {"createable": False, "updateable": False}
_BY_TYPE: Mapping[str, Mapping[str, Any]] = {
    "id": {"length": 18, "soapType": "tns:ID", "idLookup": True, "nillable": False, "defaultedOnCreate": True},
    "reference": {"length": 18, "soapType": "tns:ID"},
    "string": {"length": 255},
    "textarea": {"length": 255, "extraTypeInfo": "plaintextarea"},
    "picklist": {"length": 255},
    "multipicklist": {"length": 4099, "groupable": False, "sortable": False},
    "boolean": {
        "soapType": "xsd:boolean",
        "nillable": False,
        "defaultedOnCreate": True,
        "defaultValue": False,
        "aggregatable": False,
    },
    "int": {"soapType": "xsd:int", "digits": 8},
    "double": {"soapType": "xsd:double", "precision": 18, "scale": 2, "groupable": False},
    "currency": {"soapType": "xsd:double", "precision": 18, "scale": 2, "groupable": False},
    "percent": {"soapType": "xsd:double", "precision": 18, "scale": 2, "groupable": False},
    "date": {"soapType": "xsd:date"},
    "datetime": {"soapType": "xsd:dateTime", "groupable": False},
    "time": {"soapType": "xsd:time"},
    "email": {"length": 80},
    "phone": {"length": 40},
    "url": {"length": 255},
    "address": {"soapType": "urn:address", **_READ_ONLY, "sortable": False, "groupable": False},
    "location": {"soapType": "urn:location", **_READ_ONLY, "sortable": False, "groupable": False},
}
_LONG_TEXT = {"filterable": False, "sortable": False, "groupable": False, "aggregatable": False}
_SHORT_TEXT_LENGTH = 255
_OBJECT_FLAGS = (
    "compactLayoutable",
    "createable",
    "custom",
    "deletable",
    "feedEnabled",
    "layoutable",
    "mruEnabled",
    "queryable",
    "replicateable",
    "retrieveable",
    "searchLayoutable",
    "searchable",
    "triggerable",
    "undeletable",
    "updateable",
)
_OBJECT: Mapping[str, Any] = {
    "actionOverrides": [],
    "activateable": False,
    "childRelationships": [],
    "customSetting": False,
    "deepCloneable": False,
    "defaultImplementation": None,
    "deprecatedAndHidden": False,
    "extendedBy": None,
    "extendsInterfaces": None,
    "hasSubtypes": False,
    "implementedBy": None,
    "implementsInterfaces": None,
    "isInterface": False,
    "isSubtype": False,
    "listviewable": None,
    "lookupLayoutable": None,
    "mergeable": False,
    "namedLayoutInfos": [],
    "networkScopeFieldName": None,
    "recordTypeInfos": [],
    "supportedScopes": [],
} | dict.fromkeys(_OBJECT_FLAGS, True)


def complete_field(partial: Mapping[str, Any]) -> dict[str, Any]:
    """Return a full field describe; what `partial` leaves out follows from its `name` and `type`.

    Raises:
        ValueError: No `name`, or a `type` the org does not have.
    """
    name, kind = str(partial.get("name", "")), str(partial.get("type", "string"))
    if not name.replace("_", "").isalnum() or not name[0].isalpha() or not name.isascii():
        raise ValueError(f"not an API name: {name!r}")
    if kind not in _BY_TYPE:
        raise ValueError(f"no such field type: {kind!r}")
    label = name.removesuffix("__c").replace("_", " ")
    field: dict[str, Any] = {**_FIELD, **_BY_TYPE[kind], "label": label}
    field["custom"] = name.endswith(("__c", "__s"))
    field["picklistValues"] = [_picklist_entry(entry) for entry in partial.get("picklistValues", [])]
    given = {key: value for key, value in partial.items() if key != "picklistValues"}
    return {**field, **_consequences({**field, **given}), **given}


def _consequences(field: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members that Salesforce derives from others."""
    derived: dict[str, Any] = {"byteLength": 3 * field["length"]}
    if field["type"] == "textarea" and field["length"] > _SHORT_TEXT_LENGTH:
        derived |= _LONG_TEXT
    if field["calculated"]:
        derived |= _READ_ONLY
    if field["externalId"]:
        derived["idLookup"] = True
    if field["type"] == "reference" and field["name"].endswith("__c"):
        derived["relationshipName"] = field["name"].removesuffix("c") + "r"
    return derived


def _picklist_entry(entry: str | Mapping[str, Any]) -> dict[str, Any]:
    given = {"value": entry} if isinstance(entry, str) else dict(entry)
    base = {"active": True, "defaultValue": False, "label": given.get("value"), "validFor": None}
    return base | given


_SYSTEM_FIELDS: tuple[Mapping[str, Any], ...] = (
    {"name": "Id", "type": "id", "label": "Record ID", **_READ_ONLY},
    {"name": "IsDeleted", "type": "boolean", "label": "Deleted", **_READ_ONLY},
    {"name": "CreatedDate", "type": "datetime", "label": "Created Date"},
    {"name": "CreatedById", "type": "reference", "referenceTo": ["User"], "relationshipName": "CreatedBy"},
    {"name": "LastModifiedDate", "type": "datetime", "label": "Last Modified Date"},
    {"name": "LastModifiedById", "type": "reference", "referenceTo": ["User"], "relationshipName": "LastModifiedBy"},
    {"name": "SystemModstamp", "type": "datetime", "label": "System Modstamp"},
)
_OWNER: Mapping[str, Any] = {
    "name": "OwnerId",
    "type": "reference",
    "label": "Owner ID",
    "referenceTo": ["Group", "User"],
    "relationshipName": "Owner",
    "polymorphicForeignKey": True,
    "namePointing": True,
    "nillable": False,
    "defaultedOnCreate": True,
}


def complete_object(partial: Mapping[str, Any]) -> dict[str, Any]:
    """Return a full object describe with the system fields every object has.

    Raises:
        ValueError: `name` or `keyPrefix` is missing or malformed, or a field cannot be described.
    """
    name, prefix = str(partial.get("name", "")), str(partial.get("keyPrefix", ""))
    if not prefix.isalnum() or len(prefix) != len("001"):
        raise ValueError(f"not a key prefix: {prefix!r}")
    label = str(partial.get("label") or name.removesuffix("__c").replace("_", " "))
    fields = {field["name"]: field for field in map(complete_field, partial.get("fields", []))}
    for system in _system_fields(custom=name.endswith("__c")):
        fields.setdefault(system["name"], system)
    own = {key: value for key, value in partial.items() if key != "fields"}
    base = f"/services/data/vxx.0/sobjects/{name}"
    urls = {"sobject": base, "describe": f"{base}/describe", "rowTemplate": f"{base}/{{ID}}"}
    defaults = {"label": label, "labelPlural": f"{label}s", "custom": name.endswith("__c"), "urls": urls}
    return {**_OBJECT, **defaults, **own, "fields": list(fields.values())}


def _system_fields(*, custom: bool) -> list[dict[str, Any]]:
    read_only = {**_READ_ONLY, "nillable": False, "defaultedOnCreate": True}
    system = [complete_field({**field, **read_only}) for field in _SYSTEM_FIELDS]
    return [*system, complete_field(_OWNER)] if custom else system
