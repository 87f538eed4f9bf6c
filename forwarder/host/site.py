"""What a command is about: the host, the NICs that count, the cores, and the notes on both.

Without --nic: the configured interfaces; else every physical NIC that is not management; else the
host's stages.  Of a management NIC that --nic does not name only those steps that do not reset its
link, so that an apply at boot does what may be done and ends well.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from forwarder.config import Config
from forwarder.host import drivers, facts, layout, management, realtime
from forwarder.host.devices import NoSuchNic, carriers
from forwarder.host.facts import Facts
from forwarder.host.root import Host
from forwarder.host.stage import Site, Wishes


@dataclass(frozen=True)
class Survey:
    site: Site
    notes: tuple[str, ...]


def survey(
    host: Host,
    config: Config,
    asked: Sequence[str] = (),
    *,
    given: bool = False,
    confirmed: bool = False,
) -> Survey:
    """`asked`: --nic; `given`: the configuration is of a file, so its count of workers counts;
    `confirmed`: --confirm, so configured management NICs are reset too.

    NoSuchNic, WrongCores: an interface or a core does not exist."""
    found = facts.gather(host)
    kept = management.find(host, found.nics, config.tune.management)
    notes: list[str] = []
    if not host.sysfs_is_ours:
        notes.append(
            "/sys shows the interfaces of another network namespace: what only it tells of a NIC "
            "(XPS, NAPI, interrupts) is left out; `ip netns exec` mounts the right one"
        )
    names, parents = _targets(host, found, asked or config.network.interfaces)
    guarded: frozenset[str] = frozenset()
    if names and not asked and not confirmed:
        guarded = frozenset(names) & frozenset(kept)
        notes += [
            f"{name}: {kept[name]}, so it is management: of its steps only those that do not reset "
            f"its link; --nic {name} plans them all, and apply does them with --confirm SECONDS"
            for name in names if name in guarded
        ]  # fmt: skip
    elif not names:
        physical = [nic.name for nic in found.nics.values() if nic.kind == "physical"]
        names = [name for name in physical if name not in kept]
        if not names and physical:
            names, guarded = physical, frozenset(physical)
            notes.append(
                f"{', '.join(physical)}: {kept[physical[0]]}, so it is management: host stages, "
                "and of its steps only those that do not reset its link; --nic "
                f"{physical[0]} plans them all"
            )
        elif not names:
            notes.append("there is no physical NIC: host stages only")
    told = dict(zip(config.network.interfaces, config.network.numa_nodes, strict=False))
    nics = [found.nics[name] for name in names]
    nics = [dataclasses.replace(nic, node=told.get(nic.name, nic.node)) for nic in nics]
    count = config.dataplane.workers if given else 0
    cores = layout.choose(
        found,
        nics,
        count=count,
        pinned=config.dataplane.cpus,
        housekeeping=config.tune.housekeeping,
    )
    workers = realtime.of(host, config, found, cores, count)
    notes += [workers.why] if workers.why else []
    table = drivers.load()
    notes += [table.quote(nic, found.release) for nic in nics if nic.kind == "physical"]
    site = Site(
        host=host,
        facts=found,
        layout=cores,
        nics=tuple(nics),
        drivers=table,
        wishes=_wishes(config, workers),
        management=kept,
        guarded=guarded,
        vlan_parents=parents,
        confirmed=confirmed,
    )
    return Survey(site, tuple(notes))


def refreshed(site: Site) -> Site:
    """The same cores and NICs, read again.  NoSuchNic: a NIC has gone meanwhile."""
    found = facts.again(site.host, site.facts, [nic.name for nic in site.nics])
    gone = [nic.name for nic in site.nics if nic.name not in found.nics]
    if gone:
        raise NoSuchNic(f"{gone[0]} has gone meanwhile: plug it in, or leave it out")
    nics = tuple(dataclasses.replace(found.nics[nic.name], node=nic.node) for nic in site.nics)
    return dataclasses.replace(site, facts=found, nics=nics)


def _wishes(config: Config, workers: realtime.Class) -> Wishes:
    plane = config.dataplane
    return Wishes(
        busy_poll=plane.busy_poll,
        fifo=workers.fifo,
        fifo_asked=workers.fifo and workers.asked,
        packet_frames=plane.frames,
        port=config.network.port,
        interrupts=config.tune.interrupts,
    )


def _targets(host: Host, found: Facts, names: Sequence[str]) -> tuple[list[str], frozenset[str]]:
    """Interfaces to tune for those named: a bond's slaves, a VLAN's parent."""
    targets: list[str] = []
    parents: set[str] = set()
    for name in names:
        nic = found.nics.get(name) or found.nics.get(host.first_name(name))
        if nic is None:
            near = difflib.get_close_matches(name, found.nics, 1, 0.5)
            hint = f"; did you mean {near[0]}?" if near else f": there are {', '.join(found.nics)}"
            raise NoSuchNic(f"there is no interface {name}{hint}")
        if nic.kind == "loopback":
            raise NoSuchNic(f"{name} is the loopback interface: there is nothing to tune")
        below = carriers(found.nics, nic)
        targets += below
        if nic.kind == "vlan":
            parents.update(below)
    return list(dict.fromkeys(targets)), frozenset(parents)
