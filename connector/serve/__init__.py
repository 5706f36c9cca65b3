"""The way from the replica to the mesh: relay of the outbox, control and health."""
