"""A simulated company and its ThousandEyes API; shares no code with the rest of the package."""

from exporter.simulator.faults import FAULTS, Fault, parse_faults
from exporter.simulator.server import Simulator
from exporter.simulator.world import World

__all__ = ["FAULTS", "Fault", "Simulator", "World", "parse_faults"]
