"""Metric definitions and exposition formats."""
