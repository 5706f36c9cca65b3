"""The org's streaming endpoint: Bayeux over long polling, as Salesforce implements it."""

from connector.devorg.cometd.server import routes

__all__ = ["routes"]
