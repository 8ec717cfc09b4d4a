"""Endpoint sessions: filter, store, join and aggregate. Pure: no I/O, no clock."""
