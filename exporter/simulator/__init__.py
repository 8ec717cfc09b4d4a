"""A pretend company, and a server that speaks versions 6 and 7 of the ThousandEyes API for it.

Left to others: the client, with which it shares nothing, or a mistake would agree with itself.
"""

from exporter.simulator.faults import describe as describe_faults
from exporter.simulator.faults import parse_faults
from exporter.simulator.server import Simulator
from exporter.simulator.world import World

__all__ = ["Simulator", "World", "describe_faults", "parse_faults"]
