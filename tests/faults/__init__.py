"""Everything that can go wrong, provoked for real: one row of docs/faults.md after another."""
