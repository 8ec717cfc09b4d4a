"""Prometheus exporter for Cisco ThousandEyes endpoint agents."""

NAME = "thousandeyes-exporter"
__version__ = "0.2.0"
