"""The resources below `/services/data/`: rows, Composite, query, Bulk, limits, tooling."""
