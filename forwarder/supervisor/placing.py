"""Where workers run, and which of them serve which interface: each node's its own, where interfaces
lie on several.

The rule is host.layout.spread, by which `vcfwd tune` chooses cores and queues as well.
"""

from __future__ import annotations

from dataclasses import replace

from forwarder.config import Config
from forwarder.dataplane.setup import Interface
from forwarder.host import facts, isolation
from forwarder.host.journal import Journal
from forwarder.host.layout import Spread, spread
from forwarder.host.root import Host


def pinned(config: Config, host: Host) -> Config:
    """The configuration with the cores that `vcfwd tune apply` keeps for the workers, where it
    names none: nothing is balanced there, so unpinned ones would all stay on the same core."""
    plane = config.dataplane
    applied = Journal(host.path(f"{config.node.state_dir}/tune"), host.boot_id()).applied()
    kept = applied.workers if isolation.STAGE.name in applied.stages else ()
    if plane.cpus or len(kept) != plane.workers:
        return config
    return replace(config, dataplane=replace(plane, cpus=kept))


def place(config: Config, attached: tuple[Interface, ...], host: Host) -> Spread:
    """The workers of each interface that is attached to.  HostError: one would serve none."""
    network, plane = config.network, config.dataplane
    if len(attached) < 2:
        return spread(dict.fromkeys([item.name for item in attached], 0), plane.workers)
    nodes = facts.nodes(host)
    first = min(nodes)
    home = {cpu: node for node, cpus in nodes.items() for cpu in cpus}
    told = network.numa_nodes or [facts.node_of(host, name) for name in network.interfaces]
    here = told if network.numa_nodes else [n if n in nodes else first for n in told]
    homes = dict(zip(network.interfaces, here, strict=True))
    return spread(homes, plane.workers, [home.get(cpu, first) for cpu in plane.cpus])


def served(interfaces: tuple[Interface, ...], placed: Spread) -> tuple[Interface, ...]:
    """The interfaces with their workers; all of them where that is what was found."""
    if not placed.split:
        return interfaces
    shares = [(item, *placed.shares[item.name]) for item in interfaces]
    return tuple(replace(i, worker_first=first, worker_cnt=count) for i, first, count in shares)


def cpus(config: Config, placed: Spread) -> tuple[int, ...]:
    """Of each worker, in the order in which they are numbered."""
    wanted = config.dataplane.cpus
    return tuple(wanted[worker] for worker in placed.order) if wanted else ()
