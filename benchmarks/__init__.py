"""How fast, how small and how frugal the exporter is, each against a reference in the same run: `make bench`."""
