"""The door to the org: login, REST, Bulk, the API budget and the change stream. See DESIGN.md."""
