"""The admin interface below `/devorg/`, and the records it makes up."""
