"""The configuration: frozen, checked, every fault at once.

Law: configs/default.toml is the manual and the only place of defaults; the classes here have the
same keys and no defaults of their own (tests/unit/test_config.py holds the two together).  What
`load` returns is complete and valid, or ConfigError lists every fault, each with its file, its key
and, for an unknown key, the nearest right name.

Where default.toml is: `configs/` beside the package (a checkout, an editable installation), else
`<prefix>/share/vcfwd/` (an installed package).
"""

from __future__ import annotations

import os
import socket
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from forwarder.configchecks import (
    CPUS_MAX,
    INTERFACES_MAX,
    WORKERS_MAX,
    address_list,
    checked,
    flag,
    is_interface,
    is_nodes,
    is_origin,
    is_path,
    is_path_or_empty,
    is_token_keys,
    is_turn_url,
    list_of,
    nearest,
    one_of,
    processors,
    text,
    whole,
)
from forwarder.configdirs import exposed, settle_directories
from forwarder.errors import ConfigError

FILE_MAX = 1 << 20
"""Bytes of a configuration file."""
ROOM_ACTIVE_MAX = 10_000
"""Largest limit of hosts and active participants of a room."""
ROOM_PASSIVE_MAX = 100_000
"""Largest limit of passive participants of a room."""

PATHS = ("auto", "xdp", "udp", "xdp-zerocopy", "xdp-native", "xdp-generic")

# ---- the sections; see configs/default.toml for what each key means ------------------------------


@dataclass(frozen=True)
class Node:
    name: str = text(r"[^\x00-\x1f]{0,63}", "text of at most 63 characters")
    run_dir: str = checked(is_path)
    state_dir: str = checked(is_path)


@dataclass(frozen=True)
class Network:
    addresses: tuple[str, ...] = address_list(least=1)
    port: int = whole(1, 65535)
    interfaces: tuple[str, ...] = list_of(INTERFACES_MAX, is_interface, "interface names")
    numa_nodes: tuple[int, ...] = checked(is_nodes)
    path: str = one_of(*PATHS)
    advertised_addresses: tuple[str, ...] = address_list()
    bpf_pin_dir: str = checked(is_path_or_empty)


@dataclass(frozen=True)
class TokenKey:
    kid: str
    secret: str = field(repr=False)


@dataclass(frozen=True)
class Api:
    port: int = whole(1, 65535)
    addresses: tuple[str, ...] = address_list()
    cert_file: str = checked(is_path_or_empty)
    key_file: str = checked(is_path_or_empty)
    token_keys: tuple[TokenKey, ...] = checked(is_token_keys)
    token_leeway_s: int = whole(0, 300)
    cors_origins: tuple[str, ...] = list_of(64, is_origin, 'origins like "https://example.com"')


@dataclass(frozen=True)
class Dataplane:
    workers: int = whole(1, WORKERS_MAX)
    cpus: tuple[int, ...] = processors(WORKERS_MAX)
    legs_max: int = whole(1, 1 << 20)
    sources_max: int = whole(1, 1 << 20)
    routes_max: int = whole(1, 1 << 22)
    history_audio: int = whole(1, 1 << 20)
    history_video: int = whole(1, 1 << 20)
    audio_slots: int = whole(64, 16384, power_of_two=True)
    video_slots: int = whole(64, 16384, power_of_two=True)
    frames: int = whole(1024, 1 << 20, power_of_two=True)
    queue_limit_ms: int = whole(20, 2000)
    idle_spin_us: int = whole(0, 1_000_000)
    busy_poll: bool = flag()
    scheduler: str = one_of("auto", "fifo", "other")
    priority: int = whole(1, 99)
    rtcp_interval_ms: int = whole(100, 10_000)
    orphan_s: int = whole(1, 3600)
    crypto: str = one_of("auto", "ipsec-mb", "openssl")
    watchdog_ms: int = whole(50, 10_000)


@dataclass(frozen=True)
class Pacing:
    start_rate: int = whole(0, 100_000_000_000)


@dataclass(frozen=True)
class Tune:
    housekeeping: tuple[int, ...] = processors(CPUS_MAX)
    management: tuple[str, ...] = list_of(64, is_interface, "interface names")
    interrupts: str = one_of("housekeeping", "worker")


@dataclass(frozen=True)
class RoomLimits:
    max_rooms: int = whole(1, 1_000_000)
    max_active: int = whole(1, ROOM_ACTIVE_MAX)
    max_passive: int = whole(0, ROOM_PASSIVE_MAX)
    empty_ttl_s: int = whole(0, 604_800)
    resume_grace_s: int = whole(1, 600)


@dataclass(frozen=True)
class Guard:
    prefix_packets_per_s: int = whole(100, 10_000_000)
    prefix_burst: int = whole(100, 10_000_000)
    flow_packets_per_s: int = whole(100, 10_000_000)
    flow_burst_packets: int = whole(100, 1_000_000)
    flow_bytes_per_s: int = whole(10_000, 10_000_000_000)
    flow_burst_bytes: int = whole(262_144, 1_000_000_000)
    control_packets_per_s: int = whole(10, 1_000_000)
    control_burst: int = whole(10, 1_000_000)


@dataclass(frozen=True)
class Ice:
    urls: tuple[str, ...] = list_of(8, is_turn_url, "URIs of TURN servers (RFC 7065)")
    secret_file: str = checked(is_path_or_empty)
    ttl_s: int = whole(60, 604_800)
    max_half_open: int = whole(1, 65_536)


@dataclass(frozen=True)
class Signaling:
    idle_timeout_s: int = whole(5, 600)
    max_sessions: int = whole(1, 1_000_000)
    join_timeout_s: int = whole(1, 300)


@dataclass(frozen=True)
class Metrics:
    enabled: bool = flag()
    path: str = text(r"/[A-Za-z0-9_./-]{0,127}", 'a path that begins with "/"')


@dataclass(frozen=True)
class Log:
    level: str = one_of("debug", "info", "warning", "error")
    format: str = one_of("text", "json")


@dataclass(frozen=True)
class Config:
    """Everything that can be configured; `notes` are sentences that start-up should print."""

    node: Node
    network: Network
    api: Api
    dataplane: Dataplane
    pacing: Pacing
    tune: Tune
    rooms: RoomLimits
    guard: Guard
    ice: Ice
    signaling: Signaling
    metrics: Metrics
    log: Log
    notes: tuple[str, ...] = ()


SECTIONS: dict[str, type[Any]] = {
    "node": Node,
    "network": Network,
    "api": Api,
    "dataplane": Dataplane,
    "pacing": Pacing,
    "tune": Tune,
    "rooms": RoomLimits,
    "guard": Guard,
    "ice": Ice,
    "signaling": Signaling,
    "metrics": Metrics,
    "log": Log,
}

# ---- reading -------------------------------------------------------------------------------------


def default_file() -> Path:
    """The path of default.toml (the module's docstring says where it is looked for)."""
    package = Path(__file__).resolve().parent
    places = (
        package.parent / "configs" / "default.toml",
        Path(sys.prefix) / "share" / "vcfwd" / "default.toml",
    )
    for place in places:
        if place.is_file():
            return place
    looked = " nor ".join(map(str, places))
    raise ConfigError([f"default.toml is neither {looked}: install vcfwd again"])


@cache
def defaults() -> dict[str, dict[str, Any]]:
    """The tables of default.toml.  Do not change them."""
    return _read(default_file())


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_MAX + 1)
        if len(raw) > FILE_MAX:
            raise ConfigError([f"{path}: larger than {FILE_MAX:,} bytes: not a configuration"])
        return tomllib.loads(raw.decode())
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror or error}"]) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError([f"{path}: not valid TOML: {error}"]) from error


def _known_keys() -> list[str]:
    return [f"{name}.{f.name}" for name, kind in SECTIONS.items() for f in fields(kind)]


def _unknown(key: str) -> str:
    """`network.prot` -> the nearest of all keys, in this section or another."""
    known = _known_keys()
    hint = nearest(key, known)
    if not hint:
        leaf = key.rpartition(".")[2]
        homes = [name for name in known if name.rpartition(".")[2] == leaf]
        hint = f"; did you mean {homes[0]}?" if homes else ""
    return f"no such key{hint}"


def _flatten(table: Mapping[str, Any], origin: str, faults: list[str]) -> Iterator[tuple[str, Any]]:
    """The (section.key, value) pairs of a file; what has no place in it becomes a fault."""
    for section, body in table.items():
        if section not in SECTIONS:
            near = nearest(section, list(SECTIONS))
            if isinstance(body, dict):
                faults.append(f"{origin}: [{section}]: no such section{near}")
            else:
                faults.append(f"{origin}: {section}: {_unknown(section)}")
        elif not isinstance(body, dict):
            faults.append(f"{origin}: {section}: must be a section: [{section}]")
        else:
            for key, value in body.items():
                yield f"{section}.{key}", value


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _set(
    values: dict[str, dict[str, Any]], key: str, value: Any, origin: str, faults: list[str]
) -> None:
    section, _, name = key.partition(".")
    known = fields(SECTIONS[section]) if section in SECTIONS else ()
    spec = next((f for f in known if f.name == name), None)
    if spec is None:
        faults.append(f"{origin}: {key}: {_unknown(key)}")
        return
    wrong = spec.metadata["check"](value)
    if wrong is not None:
        is_ = "" if name == "token_keys" else f" is {_shown(value)}"
        faults.append(f"{origin}: {key}{is_}; it must be {wrong}")
        return
    values[section][name] = value


def _cross_check(values: Mapping[str, Mapping[str, Any]], origin: str) -> Iterator[str]:
    """Faults that no single key has."""
    network, api, dataplane = values["network"], values["api"], values["dataplane"]
    if network["path"].startswith("xdp") and not network["interfaces"]:
        yield (
            f'{origin}: network.path is "{network["path"]}", but network.interfaces is empty: '
            "name the interfaces to attach to"
        )
    if network["numa_nodes"] and len(network["numa_nodes"]) != len(network["interfaces"]):
        yield (
            f"{origin}: network.numa_nodes has {len(network['numa_nodes'])} numbers for "
            f"{len(network['interfaces'])} interfaces: one for each, or none"
        )
    if bool(api["cert_file"]) != bool(api["key_file"]):
        yield f"{origin}: api.cert_file and api.key_file: give both, or neither"
    if bool(values["ice"]["urls"]) != bool(values["ice"]["secret_file"]):
        yield f"{origin}: ice.urls and ice.secret_file: give both, or neither"
    if dataplane["cpus"] and len(dataplane["cpus"]) != dataplane["workers"]:
        yield (
            f"{origin}: dataplane.cpus names {len(dataplane['cpus'])} processors for "
            f"{dataplane['workers']} workers: as many as workers, or none"
        )


# ---- the door ------------------------------------------------------------------------------------


def load(
    path: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    euid: int | None = None,
) -> Config:
    """The defaults, then the file at `path`, then `overrides` ({"network.port": 443}).

    `environ` and `euid` decide the fallback of the directories; by default the process's own.
    Raises ConfigError with every fault.
    """
    origin = str(path) if path is not None else "the configuration"
    faults: list[str] = []
    values: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    given: set[str] = set()
    for key, value in _flatten(defaults(), "default.toml", faults):
        _set(values, key, value, "default.toml", faults)
    if path is not None:
        for key, value in _flatten(_read(Path(path)), origin, faults):
            given.add(key)
            _set(values, key, value, origin, faults)
    for key, value in (overrides or {}).items():
        given.add(key)
        plain = list(value) if isinstance(value, tuple) else value
        _set(values, key, plain, "command line", faults)
    faults.extend(_cross_check(values, origin))
    if faults:
        raise ConfigError(faults)
    notes = settle_directories(
        values["node"],
        given,
        os.environ if environ is None else environ,
        os.geteuid() if euid is None else euid,
    )
    return _build(values, (*notes, *exposed(path, given)))


def _build(values: dict[str, dict[str, Any]], notes: tuple[str, ...]) -> Config:
    node, network, api = values["node"], values["network"], values["api"]
    node["name"] = node["name"] or socket.gethostname()[:63]
    network["bpf_pin_dir"] = network["bpf_pin_dir"] or f"{node['run_dir']}/bpf"
    network["advertised_addresses"] = network["advertised_addresses"] or network["addresses"]
    api["addresses"] = api["addresses"] or network["addresses"]
    api["token_keys"] = [TokenKey(**entry) for entry in api["token_keys"]]
    sections = {
        name: kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values[name].items()})
        for name, kind in SECTIONS.items()
    }
    return Config(**sections, notes=notes)
