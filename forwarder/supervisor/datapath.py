"""Opens the data path of a node as the configuration asks: steering, sockets, data plane process.

Law: whatever the kernel or the living data plane already has is taken over; a set-up that differs
from the configuration is ended and made anew, and the log says so.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

from forwarder.config import Config
from forwarder.dataplane import paths
from forwarder.dataplane.process import DataPlane
from forwarder.dataplane.scheduling import AUTO, Scheduling, choose, refusal
from forwarder.dataplane.selector import attach_classic
from forwarder.dataplane.setup import Crypto, Interface, Local, Scheduler, Setup, SetupFlags
from forwarder.dataplane.sockets import Group
from forwarder.dataplane.started import Started
from forwarder.dataplane.steering import Steering
from forwarder.dataplane.steering_abi import XSKS_MAX, Rates
from forwarder.dataplane.steering_probe import missing_capabilities
from forwarder.errors import DataPlaneError, HostError
from forwarder.host import cpuset, devices
from forwarder.host.layout import Spread
from forwarder.host.root import Host
from forwarder.net import qdiscs
from forwarder.supervisor import placing
from forwarder.telemetry.logs import fields

log = logging.getLogger(__name__)

XSKS_AN_INTERFACE = 64  # XSKMAP entries kept for the receive queues of one interface
CRYPTO = {"auto": Crypto.AUTO, "ipsec-mb": Crypto.IMB, "openssl": Crypto.EVP}
MODES = {"xdp-zerocopy": "native", "xdp-native": "native", "xdp-generic": "generic"}


@dataclass
class DataPath:
    """The open data path.  `steering` is None where eBPF cannot be had (no privileges)."""

    choice: paths.Choice
    steering: Steering | None
    plane: DataPlane
    adopted: bool
    selector: str  # "ebpf" or "classic", and why
    zerocopy: tuple[bool, ...]
    scheduling: Scheduling

    async def shutdown(self) -> None:
        """Ends the data plane and takes everything out of the kernel again."""
        await self.plane.shutdown()
        if self.steering is not None:
            self.steering.unload()


def _rates(config: Config) -> Rates:
    guard = config.guard
    return Rates(
        flow_bytes_per_s=guard.flow_bytes_per_s,
        flow_burst_bytes=guard.flow_burst_bytes,
        flow_packets_per_s=guard.flow_packets_per_s,
        flow_burst_packets=guard.flow_burst_packets,
        control_packets_per_s=guard.control_packets_per_s,
        control_burst_packets=guard.control_burst,
        admitted_packets_per_s=guard.control_packets_per_s,
        admitted_burst_packets=guard.control_burst,
        prefix_packets_per_s=guard.prefix_packets_per_s,
        prefix_burst_packets=guard.prefix_burst,
    )


def _load_steering(config: Config) -> tuple[Steering | None, str]:
    """The steering maps and program, or None and why not (fatal only where XDP is forced)."""
    if os.geteuid() != 0 and (missing := missing_capabilities()):
        lack = f"neither root nor {', '.join(missing)}"
        return None, f"{lack}: no eBPF, the classic selector guards nothing"
    try:
        return Steering.load(Path(config.network.bpf_pin_dir), _rates(config)), ""
    except HostError as error:
        if config.network.path.startswith("xdp"):
            raise
        return None, f"eBPF cannot be used: {error}"


def _choose(config: Config, steering: Steering | None) -> paths.Choice:
    """Falling back to sockets beside a foreign program would hide a fault of the set-up: refuse."""
    network = config.network
    if steering is None:
        return paths.choose(network.path, network.interfaces)
    if network.path != paths.UDP:
        for name in network.interfaces:
            steering.refuse_foreign(name)
    return paths.choose(network.path, network.interfaces, steering.probe)


def _attach(
    config: Config, steering: Steering, choice: paths.Choice
) -> tuple[paths.Choice, tuple[Interface, ...]]:
    """Attaches to the configured interfaces and to nothing else."""
    interfaces = []
    for i, name in enumerate(config.network.interfaces):
        mode = "native" if MODES[choice.path] == "native" else "generic"
        result = steering.attach(name, "native" if mode == "native" else "generic")
        base = i * XSKS_AN_INTERFACE
        steering.set_port_base(result.ifindex, base)
        zerocopy = choice.path == "xdp-zerocopy"
        interfaces.append(Interface(name, result.ifindex, base, zerocopy))
    return choice, tuple(interfaces)


def _detach_others(steering: Steering, names: tuple[str, ...]) -> None:
    """An interface that the configuration no longer names is given back."""
    wanted = set()
    for name in names:
        try:
            wanted.add(socket.if_nametoindex(name))
        except OSError:
            continue
    for ifindex in steering.attached():
        if ifindex not in wanted:
            steering.detach(socket.if_indextoname(ifindex))


def _pacing(config: Config, choice: paths.Choice) -> tuple[paths.Choice, SetupFlags]:
    """On the socket path the kernel holds packets until their time, where it can; says so."""
    if choice.path != paths.UDP:
        return choice, SetupFlags.NONE
    obstacle = qdiscs.why_not_held(config.network.addresses)
    told = f"departures timed by the workers: {obstacle}" if obstacle else "departures timed by fq"
    flags = SetupFlags.NONE if obstacle else SetupFlags.UDP_TXTIME
    return replace(choice, why=f"{choice.why}; {told}"), flags


def scheduling(config: Config, *, service: bool = False) -> Scheduling:
    """The class of the workers that the configuration asks for, or that suits this host.

    `service`: what the data plane's own unit allows counts, not what this process may."""
    plane = config.dataplane
    refused = (lambda _: None) if service else refusal
    return choose(plane.scheduler, plane.priority, plane.workers, plane.cpus, refused=refused)


def _setup(
    config: Config,
    interfaces: tuple[Interface, ...],
    flags: SetupFlags,
    chosen: Scheduling,
    placed: Spread,
) -> Setup:
    plane, network = config.dataplane, config.network
    return Setup(
        locals=tuple(Local(str(ip_address(ip)), network.port) for ip in network.addresses),
        workers=plane.workers,
        interfaces=placing.served(interfaces, placed),
        crypto=CRYPTO[plane.crypto],
        legs_max=plane.legs_max,
        sources_max=plane.sources_max,
        routes_max=plane.routes_max,
        history_audio=plane.history_audio,
        history_video=plane.history_video,
        audio_slots=plane.audio_slots,
        video_slots=plane.video_slots,
        frames=plane.frames,
        queue_limit_ms=plane.queue_limit_ms,
        idle_spin_us=plane.idle_spin_us,
        busy_poll=plane.busy_poll,
        scheduler=chosen.scheduler,
        priority=chosen.priority,
        rtcp_interval_ms=plane.rtcp_interval_ms,
        orphan_s=plane.orphan_s,
        flags=flags,
        cpus=placing.cpus(config, placed),
    )


def _isolate(config: Config, pid: int) -> None:
    """Into the cpuset of the workers' cores, where `vcfwd tune` made one and no systemd does it."""
    if note := cpuset.join(Host(), pid, config.dataplane.cpus):
        log.warning("%s", note)


def _attach_selector(steering: Steering | None, group: Group) -> None:
    if steering is not None:
        steering.attach_selector(group.sockets)
    else:
        attach_classic(group.sockets)


async def _undo(plane: DataPlane, steering: Steering | None) -> None:
    """After a start that failed.  What an earlier supervisor left at work stays at work."""
    await plane.close()
    if steering is None:
        return
    if steering.loaded == "fresh":
        steering.unload()
    else:
        steering.close()


async def open_datapath(
    config: Config,
    *,
    on_restarted: Callable[[float], None],
    on_failed: Callable[[str], None],
    service: bool = False,
) -> DataPath:
    """Raises HostError or DataPlaneError with a sentence; nothing is left half open.

    `service`: the data plane is started by a service manager, not by us."""
    config = placing.pinned(devices.carried(config, Host()), Host())
    network = config.network
    steering: Steering | None = None
    interfaces: tuple[Interface, ...] = ()
    plane = DataPlane(
        Path(config.node.run_dir),
        on_restarted=on_restarted,
        on_failed=on_failed,
        on_group=lambda group: _attach_selector(steering, group),
        on_process=lambda pid: _isolate(config, pid),
        watchdog_ms=config.dataplane.watchdog_ms,
        service=service,
    )
    plane.take_lock()  # before anything in the kernel is touched that another supervisor uses
    try:
        steering, why_not = _load_steering(config)
        choice = _choose(config, steering)
        if steering is not None:
            _detach_others(steering, network.interfaces if choice.path != paths.UDP else ())
            for ip in network.addresses:
                steering.add_listen(ip, network.port)
            if choice.path != paths.UDP:
                choice, interfaces = _attach(config, steering, choice)
        elif choice.path != paths.UDP:
            choice = paths.Choice(paths.UDP, why_not)
        choice, flags = _pacing(config, choice)
        chosen = scheduling(config, service=service)
        placed = placing.place(config, interfaces, Host())
        setup = _setup(config, interfaces, flags, chosen, placed)
        any_class = config.dataplane.scheduler == AUTO
        adopted = await _start(plane, setup, steering, any_class=any_class)
        if adopted and steering is not None:
            for group in plane.groups:  # sockets in place are left alone
                steering.attach_selector(group.sockets)
    except BaseException:
        await _undo(plane, steering)
        raise
    ready, chosen = plane.ready, _in_force(plane.setup, chosen)
    cores = ", ".join(map(str, config.dataplane.cpus)) or "any"
    log.info("workers run", extra=fields(scheduler=chosen.name, why=chosen.why, cores=cores))
    for note in (placed.why if interfaces else "", ready.memory if ready is not None else ""):
        if note:
            log.warning("%s", note)
    return DataPath(
        choice=choice,
        steering=steering,
        plane=plane,
        adopted=adopted,
        selector="ebpf" if steering is not None else f"classic: {why_not}",
        zerocopy=tuple(ready.zerocopy) if ready is not None else (),
        scheduling=chosen,
    )


def _in_force(setup: Setup, chosen: Scheduling) -> Scheduling:
    if (setup.scheduler, setup.priority) == (chosen.scheduler, chosen.priority):
        return chosen
    return Scheduling(setup.scheduler, setup.priority, "that is how the data plane runs")


def _comparable(setup: Setup, like: Setup, any_class: bool) -> Setup:
    """Without what does not matter: pins, and the class of the workers where any will do."""
    taken = like if any_class else setup
    return replace(setup, cpus=(), scheduler=taken.scheduler, priority=taken.priority)


async def _begin(plane: DataPlane, setup: Setup, xsks: int | None, *, any_class: bool) -> Started:
    """Where any class will do, a data plane that may not have the real-time one gets the usual."""
    try:
        return await plane.start(setup, xsks_map=xsks)
    except DataPlaneError as error:
        if not any_class or setup.scheduler is Scheduler.OTHER or "real-time" not in str(error):
            raise
        log.warning("the workers run in the usual scheduling class: %s", error)
        usual = replace(setup, scheduler=Scheduler.OTHER, priority=0)
        return await plane.start(usual, xsks_map=xsks)


async def _start(
    plane: DataPlane, setup: Setup, steering: Steering | None, *, any_class: bool
) -> bool:
    """Starts or adopts; one whose set-up differs from the configuration is ended first, and so is
    one whose XSKMAP is no longer that of the program."""
    assert len(setup.interfaces) * XSKS_AN_INTERFACE <= XSKS_MAX
    xsks = steering.xsks_fd if steering is not None and setup.interfaces else None
    started = await _begin(plane, setup, xsks, any_class=any_class)
    other = _comparable(plane.setup, setup, any_class) != replace(setup, cpus=())
    if xsks is not None and steering is not None:
        other = other or steering.loaded == "maps_replaced"
    if started.adopted and other:
        log.warning(
            "the data plane that runs has another set-up; ending it",
            extra=fields(pid=plane.pid),
        )
        await plane.shutdown(again=True)
        started = await _begin(plane, setup, xsks, any_class=any_class)
    if started.changed:
        log.warning("the data plane goes on as it is: %s", started.changed)
    return started.adopted
