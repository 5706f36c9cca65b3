"""A SQLite replica of Salesforce records, kept current and published over MQTT."""
