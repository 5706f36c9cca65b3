"""What an object and its fields are: describe results, and values as they come in and go out."""
