"""SOQL: text to tree (`parse`), tree to SQL (`compile`), rows to JSON or CSV (`render`)."""
