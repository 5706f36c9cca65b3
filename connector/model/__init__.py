"""Frozen nouns of the connector: no I/O, and nothing of ours imported from outside this folder."""
