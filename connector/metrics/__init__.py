"""Prometheus metrics. The only folder that imports prometheus_client."""
