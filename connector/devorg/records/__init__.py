"""The org's records: transactions over them, reading, the ledger."""
