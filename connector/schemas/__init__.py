"""The contract as files: what is published and accepted, as JSON Schema and as an AsyncAPI document."""

from connector.schemas.asyncapi import asyncapi
from connector.schemas.documents import DOCUMENTS, schemas
from connector.schemas.records import object_schema

__all__ = ["DOCUMENTS", "asyncapi", "object_schema", "schemas"]
