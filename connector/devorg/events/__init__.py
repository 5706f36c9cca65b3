"""Commits as change events: rendered, logged under replay ids, seen through channels."""
