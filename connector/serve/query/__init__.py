"""Queries from the mesh, answered from the replica."""
