"""One open transaction of the org: every kind of write to records, each of them done whole or not at all."""

from collections.abc import Mapping, Sequence
from typing import Any

from connector.devorg.errors import OrgError
from connector.devorg.ids import normal_id
from connector.devorg.objects import validation
from connector.devorg.objects.fields import Field, ObjectSchema
from connector.devorg.records import conversion, relations, saving
from connector.devorg.records.work import Work


class Transaction(Work):
    """The writes of one user that become visible together.

    A write that is refused leaves no trace, and the transaction goes on. Stamps are taken when a row is written.
    """

    def create(self, object_name: str, values: Mapping[str, Any]) -> str:
        """Create a record and return its id.

        Raises:
            OrgError: The values are refused.
        """
        return saving.create(self, object_name, values)

    def update(self, object_name: str, record_id: str, values: Mapping[str, Any]) -> None:
        """Set fields of a live record.

        Raises:
            OrgError: There is no such live record, it is locked, or the values are refused.
        """
        saving.update(self, object_name, record_id, values)

    def upsert(self, object_name: str, field_name: str, value: Any, values: Mapping[str, Any]) -> tuple[str, bool]:
        """Update the record whose `field_name` holds `value`, or create it; return its id and whether it is new.

        Raises:
            OrgError: The field is no key, several records match, or the values are refused.
        """
        schema = self.object_for(object_name, "upsert")
        key = key_field(schema, field_name)
        found = self.find(schema, key, value)
        if len(found) > 1:
            message = f"{key.name}: more than one record found for external id field: [{', '.join(found)}]"
            raise OrgError(400, "DUPLICATE_EXTERNAL_ID", message, [key.name])
        rest = {name: given for name, given in values.items() if name.lower() != key.name.lower()}
        if found:
            self.update(schema.name, found[0], rest)
            return found[0], False
        if key.type == "id":
            raise OrgError(404, "NOT_FOUND", "The requested resource does not exist")
        return self.create(schema.name, {**rest, key.name: value}), True

    def delete(self, object_name: str, record_id: str) -> None:
        """Put a record and what goes with it into the recycle bin.

        Raises:
            OrgError: There is no such live record, or it is locked, or something else forbids it.
        """
        schema = self.object_for(object_name, "delete")
        before = self.live(schema, record_id)
        with self.atomic():
            relations.delete(self, schema, before, deleted_with=before["Id"])

    def undelete(self, object_name: str, record_id: str) -> None:
        """Take a record and what was deleted with it out of the recycle bin.

        Raises:
            OrgError: 400 UNDELETE_FAILED: it is not there, or it lost a merge.
        """
        schema = self.object_for(object_name, "undelete")
        with self.atomic():
            relations.undelete(self, schema, normal_id(record_id))

    def purge(self, object_name: str, record_id: str) -> None:
        """Remove a record for good, out of the recycle bin or past it; there is no event for it.

        Raises:
            OrgError: There is no such record.
        """
        schema = self.object_for(object_name, "delete")
        with self.atomic():
            relations.purge(self, schema, normal_id(record_id))

    def merge(
        self,
        object_name: str,
        winner_id: str,
        loser_ids: Sequence[str],
        values: Mapping[str, Any] | None = None,
    ) -> None:
        """Merge up to two records into one: children move over, losers are deleted and name their master.

        Raises:
            OrgError: The object cannot be merged, a record is missing, or the values are refused.
        """
        schema = self.object_for(object_name, "merge")
        with self.atomic():
            if values:
                self.update(schema.name, winner_id, values)
            relations.merge(self, schema, normal_id(winner_id), [normal_id(loser) for loser in loser_ids])

    def convert_lead(
        self,
        lead_id: str,
        *,
        status: str = conversion.CONVERTED_STATUS,
        account_id: str | None = None,
        contact_id: str | None = None,
        opportunity_name: str | None = None,
        create_opportunity: bool = True,
    ) -> conversion.Converted:
        """Convert a lead into an account, a contact and maybe an opportunity.

        Args:
            lead_id: The lead.
            status: Its new status.
            account_id: An account that is there already, else one is made.
            contact_id: A contact that is there already, else one is made.
            opportunity_name: Name of the opportunity, else the company's.
            create_opportunity: Make one at all.

        Raises:
            OrgError: The lead is missing, deleted, or converted already.
        """
        with self.atomic():
            order = conversion.Order(
                status=status,
                account_id=account_id,
                contact_id=contact_id,
                opportunity_name=opportunity_name,
                create_opportunity=create_opportunity,
            )
            return conversion.convert(self, normal_id(lead_id), order)

    def recalculate(self, object_name: str, record_id: str, values: Mapping[str, Any]) -> None:
        """Set fields as the org does behind everybody's back: no stamp moves and no event tells of it.

        For formula and roll-up fields whose inputs changed elsewhere.

        Raises:
            OrgError: There is no such live record, or a value does not fit.
        """
        schema = self.object_for(object_name, "update")
        before = self.live(schema, record_id)
        unknown = [name for name in values if name not in schema.fields]
        if unknown:
            raise OrgError(400, "INVALID_FIELD", f"No such column '{unknown[0]}' on sobject of type {schema.name}")
        stored = {name: validation.stored_value(schema.fields[name], value) for name, value in values.items()}
        self.parts.database.update(schema.table, before["Id"], stored)


def key_field(schema: ObjectSchema, name: str) -> Field:
    """Return the field by which records can be addressed: `Id`, an external id or another look-up field.

    Raises:
        OrgError: 404 NOT_FOUND: there is no such field, or it is no key.
    """
    found = schema.field(name)
    if found is None or not (found.external_id or found.id_lookup):
        message = f"Provided external ID field does not exist or is not accessible: {name}"
        raise OrgError(404, "NOT_FOUND", message)
    return found
