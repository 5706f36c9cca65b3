"""A copy of the replica on another node, kept from the mesh alone; see DESIGN.md."""
