"""The HTTP server: the only part that knows tornado."""
