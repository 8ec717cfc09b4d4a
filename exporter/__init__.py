"""Prometheus exporter for the user sessions of Cisco ThousandEyes endpoint agents."""

NAME = "thousandeyes-exporter"
__version__ = "0.1.0"
