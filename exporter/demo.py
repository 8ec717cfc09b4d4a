"""Starts the simulator from its settings, for the commands `demo` and `simulate`.

What it serves stands in `exporter.simulator.world`, how in `exporter.simulator.server`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from exporter.app import reason
from exporter.errors import ExporterError, SettingsError
from exporter.settings import SimulatorSettings
from exporter.simulator import Simulator, World, parse_faults


@asynccontextmanager
async def running(settings: SimulatorSettings) -> AsyncIterator[str]:
    """Run the simulator; yield its address.

    Raises:
        SettingsError: for a fault that is not known.
        ExporterError: where it can not listen.
    """
    try:
        faults = parse_faults(settings.faults)
    except ValueError as error:
        raise SettingsError([f"simulator.faults: {error}"]) from error
    world = World(seed=settings.seed, agents=settings.agents, sites=settings.sites)
    simulator = Simulator(world, token=settings.token, page_size=settings.page_size, faults=faults)
    address = settings.listen_address
    try:
        try:
            url = await simulator.start(address.host or "", address.port)
        except OSError as error:
            raise ExporterError(f"can not listen on {address} (simulator.listen_address): {reason(error)}") from error
        yield url
    finally:
        await simulator.stop()
