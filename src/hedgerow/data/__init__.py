"""Data on disk: the native format, its schema, and the index of what it holds."""
