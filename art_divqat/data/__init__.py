"""Data sets and query pools by name."""
