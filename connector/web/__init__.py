"""The page: how things stand, live, in a browser on this machine. See DESIGN.md."""
