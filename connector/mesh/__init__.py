"""The door to the MQTT brokers; the only importer of paho."""
