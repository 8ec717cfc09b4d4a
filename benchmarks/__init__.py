"""Benchmarks: each measure of the exporter against a reference in the same run."""
