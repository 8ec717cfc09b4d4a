"""Fuzzing: whatever the API, a scraper or a file says, the invariants hold. `python -m fuzz` from `tests` runs it."""
