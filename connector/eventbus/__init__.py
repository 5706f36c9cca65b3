"""Salesforce's published Pub/Sub API as generated code (`make stubs`); nothing in this folder is written by hand.

`pubsub_api.proto` is the file that Salesforce publishes at https://github.com/forcedotcom/pub-sub-api (CC0 1.0).
"""
