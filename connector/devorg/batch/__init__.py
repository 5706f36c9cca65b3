"""The first Bulk API: jobs made of batches, below `/services/async/`; queries only."""
