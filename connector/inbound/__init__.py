"""The way from the org to the replica."""
