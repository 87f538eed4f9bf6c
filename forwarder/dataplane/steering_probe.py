"""Which XDP data paths an interface can use, and what stands in the way of each: facts only.

Nothing is attached, loaded or changed; what needs privilege to know is said to be unknown. Asks
the driver's feature bits (generic netlink `netdev`, Linux 6.3), its name, MTU and kind by ioctl,
which all follow the network namespace of the caller.
"""

from __future__ import annotations

import array
import fcntl
import os
import re
import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from forwarder.dataplane import bpf
from forwarder.dataplane.steering_errors import SteeringError
from forwarder.net.drivers import why_no_zerocopy

PATHS = ("xdp-zerocopy", "xdp-native", "xdp-generic")

KERNEL_FLOOR = (5, 10)

# enum netdev_xdp_act (include/uapi/linux/netdev.h)
ACT_BASIC, ACT_REDIRECT, ACT_ZEROCOPY = 1, 2, 8

# One page less headroom (256) and the skb's tail: what a native program without frags support
# can take, Ethernet header included.
NATIVE_MTU_MAX = 3498

CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN, CAP_BPF = 12, 13, 21, 39

_SIOCGIFMTU, _SIOCGIFHWADDR, _SIOCETHTOOL = 0x8921, 0x8927, 0x8946
_ETHTOOL_GDRVINFO, _DRVINFO_BYTES = 3, 196
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772


@dataclass(frozen=True)
class PathProbe:
    """One path of one interface: `why` is a sentence, also when it is usable."""

    name: str
    usable: bool
    why: str


@dataclass(frozen=True)
class Facts:
    """What is known of the interface and the host. `features` None: the kernel does not tell."""

    ifname: str
    driver: str
    hardware_type: int
    mtu: int
    features: int | None
    kernel: tuple[int, int]
    missing_capabilities: tuple[str, ...]
    program: bpf.XdpState
    program_is_ours: bool


def probe(ifname: str, own_programs: Collection[int] = ()) -> list[PathProbe]:
    """The three XDP paths, best first. SteeringError when there is no such interface."""
    return judge(gather(ifname, own_programs))


def gather(ifname: str, own_programs: Collection[int] = ()) -> Facts:
    """Read the facts. `own_programs`: ids that are not foreign."""
    try:
        ifindex = socket.if_nametoindex(ifname)
    except OSError as error:
        raise SteeringError(f"{ifname}: there is no such interface; see 'ip link'") from error
    program = bpf.xdp_read(ifindex)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        (mtu,) = struct.unpack_from("=i", _ioctl(sock, _SIOCGIFMTU, ifname), 16)
        (hardware,) = struct.unpack_from("=H", _ioctl(sock, _SIOCGIFHWADDR, ifname), 16)
        driver = _driver(sock, ifname)
    return Facts(
        ifname=ifname,
        driver=driver,
        hardware_type=hardware,
        mtu=mtu,
        features=bpf.xdp_features(ifindex),
        kernel=_kernel(),
        missing_capabilities=missing_capabilities(),
        program=program,
        program_is_ours=program.prog_id in own_programs,
    )


def judge(facts: Facts) -> list[PathProbe]:
    """Facts -> the three paths. Pure."""
    blocked = _host_block(facts)
    if blocked:
        return [PathProbe(name, False, blocked) for name in PATHS]
    native = _native(facts)
    return [_zerocopy(facts, native), native, _generic(facts)]


def _host_block(facts: Facts) -> str:
    """What rules out every XDP path, or an empty string."""
    if facts.kernel < KERNEL_FLOOR:
        return "the kernel is older than {}.{}, which XDP links need".format(*KERNEL_FLOOR)
    if facts.missing_capabilities:
        return f"this process lacks {', '.join(facts.missing_capabilities)}: run it as root"
    if facts.program.prog_id and not facts.program_is_ours:
        name = facts.program.name or "(unnamed)"
        return (
            f"the XDP program {name!r} (id {facts.program.prog_id}) is attached already and is "
            "never detached by vcfwd: end its owner first"
        )
    if facts.hardware_type not in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK):
        return f"it is not an Ethernet interface (hardware type {facts.hardware_type})"
    return ""


def _native(facts: Facts) -> PathProbe:
    driver = facts.driver or "(unknown)"
    if facts.hardware_type == _ARPHRD_LOOPBACK:
        return PathProbe("xdp-native", False, "the loopback interface has no native XDP")
    if facts.features is None:
        why = f"the kernel does not tell driver features (before 6.3); driver {driver} is tried"
        return PathProbe("xdp-native", True, why)
    if not facts.features & ACT_BASIC:
        return PathProbe("xdp-native", False, f"the driver {driver} has no native XDP")
    if not facts.features & ACT_REDIRECT:
        return PathProbe("xdp-native", False, f"the driver {driver} cannot redirect to AF_XDP")
    if facts.mtu > NATIVE_MTU_MAX:
        why = f"the MTU {facts.mtu} is above {NATIVE_MTU_MAX}, more than one buffer holds"
        return PathProbe("xdp-native", False, why)
    return PathProbe("xdp-native", True, f"the driver {driver} has native XDP with redirect")


def _zerocopy(facts: Facts, native: PathProbe) -> PathProbe:
    name, driver = "xdp-zerocopy", facts.driver or "(unknown)"
    if not native.usable:
        return PathProbe(name, False, f"zero-copy needs native XDP, and {native.why}")
    if facts.features is not None and not facts.features & ACT_ZEROCOPY:
        virtual = ": a virtual pair, whose packets are always copied" if driver == "veth" else ""
        return PathProbe(name, False, f"the driver {driver} has no zero-copy{virtual}")
    refusal = why_no_zerocopy(driver, facts.kernel)
    if refusal:
        return PathProbe(name, False, refusal)
    return PathProbe(name, True, f"the driver {driver} is on the list of safe zero-copy drivers")


def _generic(facts: Facts) -> PathProbe:
    return PathProbe(
        "xdp-generic", True, f"any interface has it; each packet of {facts.ifname} costs an skb"
    )


def _ioctl(sock: socket.socket, request: int, ifname: str) -> bytes:
    return fcntl.ioctl(sock.fileno(), request, struct.pack("=16s24x", ifname.encode()))


def _driver(sock: socket.socket, ifname: str) -> str:
    """The driver's name by ETHTOOL_GDRVINFO; empty when the interface does not say."""
    info = array.array("B", struct.pack("=I", _ETHTOOL_GDRVINFO) + bytes(_DRVINFO_BYTES - 4))
    request = struct.pack("@16sP16x", ifname.encode(), info.buffer_info()[0])
    try:
        fcntl.ioctl(sock.fileno(), _SIOCETHTOOL, request)
    except OSError:
        return ""
    return bytes(info[4:36]).split(b"\0", 1)[0].decode(errors="replace")


def _kernel() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def missing_capabilities() -> tuple[str, ...]:
    """What this process lacks for AF_XDP and the steering program; empty: nothing."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    have = int(found[1], 16) if found else 0
    if have >> CAP_SYS_ADMIN & 1 and have >> CAP_NET_ADMIN & 1:
        return ()
    wanted = {"CAP_NET_ADMIN": CAP_NET_ADMIN, "CAP_NET_RAW": CAP_NET_RAW, "CAP_BPF": CAP_BPF}
    return tuple(name for name, bit in wanted.items() if not have >> bit & 1)
