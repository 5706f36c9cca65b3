"""Who lives in every org from the start: the organization, its users, a queue; and a ready custom object."""

from collections.abc import Mapping
from typing import Any

ORGANIZATION_ID = "00D5f000000Qr8sEAC"
INTEGRATION_USER_ID = "0055f000007NnAbAAK"
FIRST_EDITOR_ID = "0055f000007SvcUAAS"
SECOND_EDITOR_ID = "0055f000007SvcVAAS"
QUEUE_ID = "00G5f000001AbCdEAK"

USER: Mapping[str, Any] = {
    "name": "User",
    "keyPrefix": "005",
    "deletable": False,
    "undeletable": False,
    "fields": [
        {"name": "Username", "length": 80, "nillable": False},
        {"name": "LastName", "length": 80, "nillable": False, "compoundFieldName": "Name"},
        {"name": "FirstName", "length": 40, "compoundFieldName": "Name"},
        {"name": "Name", "length": 121, "nameField": True, "createable": False, "updateable": False},
        {"name": "Alias", "length": 8, "nillable": False},
        {"name": "Email", "type": "email", "length": 128, "nillable": False},
        {"name": "IsActive", "type": "boolean", "label": "Active", "defaultValue": True},
        {"name": "Title", "length": 80},
        {"name": "Department", "length": 80},
        {"name": "TimeZoneSidKey", "type": "picklist", "length": 40, "nillable": False, "defaultedOnCreate": True},
    ],
}
GROUP: Mapping[str, Any] = {
    "name": "Group",
    "keyPrefix": "00G",
    "undeletable": False,
    "fields": [
        {"name": "Name", "length": 40, "nameField": True, "nillable": False},
        {"name": "DeveloperName", "length": 80, "nillable": False},
        {"name": "Type", "type": "picklist", "length": 40, "picklistValues": ["Regular", "Queue"]},
    ],
}
ORGANIZATION: Mapping[str, Any] = {
    "name": "Organization",
    "keyPrefix": "00D",
    "createable": False,
    "deletable": False,
    "undeletable": False,
    "fields": [
        {"name": "Name", "length": 80, "nameField": True, "nillable": False, "createable": False},
        {"name": "InstanceName", "length": 5, "createable": False, "updateable": False},
        {"name": "IsSandbox", "type": "boolean", "createable": False, "updateable": False},
        {"name": "OrganizationType", "type": "picklist", "length": 40, "createable": False, "updateable": False},
        {"name": "NamespacePrefix", "length": 15, "createable": False, "updateable": False},
        {"name": "TrialExpirationDate", "type": "datetime", "createable": False, "updateable": False},
    ],
}
INVOICE: Mapping[str, Any] = {
    "name": "Invoice__c",
    "keyPrefix": "a00",
    "fields": [
        {
            "name": "Name",
            "length": 80,
            "label": "Invoice Name",
            "nameField": True,
            "idLookup": True,
            "defaultedOnCreate": True,
        },
        {"name": "Amount__c", "type": "currency"},
        {"name": "Due__c", "type": "date"},
        {"name": "Paid__c", "type": "boolean"},
        {"name": "Contact__c", "type": "reference", "referenceTo": ["Contact"]},
        {"name": "Notes__c", "type": "textarea", "length": 32768},
        {"name": "BlackRoad_Key__c", "length": 128, "externalId": True, "unique": True},
    ],
}
MINIMAL_OBJECTS = (USER, GROUP, ORGANIZATION, INVOICE)

ROWS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "Organization": {
        ORGANIZATION_ID: {"Name": "Local Org", "InstanceName": "LOCAL", "OrganizationType": "Developer Edition"}
    },
    "User": {
        INTEGRATION_USER_ID: {
            "Username": "integration@local.example",
            "FirstName": "Integration",
            "LastName": "User",
            "Alias": "integr",
            "Email": "integration@local.example",
        },
        FIRST_EDITOR_ID: {
            "Username": "editor.one@local.example",
            "FirstName": "First",
            "LastName": "Editor",
            "Alias": "editor1",
            "Email": "editor.one@local.example",
        },
        SECOND_EDITOR_ID: {
            "Username": "editor.two@local.example",
            "FirstName": "Second",
            "LastName": "Editor",
            "Alias": "editor2",
            "Email": "editor.two@local.example",
        },
    },
    "Group": {QUEUE_ID: {"Name": "Lead Queue", "DeveloperName": "Lead_Queue", "Type": "Queue"}},
}
"""Rows by object and id; stamps, owner and defaults are filled in when they are stored."""
