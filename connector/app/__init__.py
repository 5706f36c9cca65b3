"""The wiring: settings in, running parts out. Only this package knows all others."""
