"""The Pub/Sub API of the local org. Needs the extra `pubsub`; imported only where it is served."""
