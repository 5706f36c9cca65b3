"""The demo: the product doing its job on this machine, with a local org, a broker, people and a service."""
