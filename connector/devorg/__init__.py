"""A local Salesforce org to develop and test against: login, REST, Bulk, streaming, faults on demand."""
