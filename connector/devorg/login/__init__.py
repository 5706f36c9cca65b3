"""Everything by which a client comes to an access token."""
