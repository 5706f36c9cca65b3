"""mesh -> org: commands are validated, stored, sent, and answered."""
