"""Three hosts in one machine: network namespaces joined by veth pairs.

    pub  pub0 ---- in0  fwd  out0 ---- sub0  sub

Names carry the process id, so that several labs can stand at once; `close()` removes what was
made here and nothing else.  Needs root.

Two traps are disarmed.  A veth leaves UDP checksums to a NIC that does not exist, so AF_XDP would
see wrong ones: transmit checksum offload is switched off at all ends.  And `ip netns exec` mounts
/sys anew, which hides a bpffs: processes are started with nsenter, for the network alone.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from forwarder.errors import HostError

COMMAND_TIMEOUT_S = 15.0
_PR_SET_PDEATHSIG = 1
NET6 = "fd77:{}::{}"


def run(*command: str) -> str:
    """Runs a short command; HostError with its words when it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"cannot run `{' '.join(command)}`: {error}") from error
    if done.returncode != 0:
        raise HostError(f"`{' '.join(command)}` failed: {done.stderr.strip() or done.stdout}")
    return done.stdout


def die_with_parent() -> Callable[[], None]:
    """For preexec_fn: the child is told to end when the process that started it is gone."""
    libc = ctypes.CDLL(None, use_errno=True)
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass(frozen=True)
class Host:
    """One namespace, or (name "") the one we are in."""

    name: str
    address: str

    def command(self, *command: str) -> list[str]:
        """The command line that runs `command` on this host, under the same process id."""
        if not self.name:
            return list(command)
        return ["nsenter", f"--net=/run/netns/{self.name}", "--", *command]

    def net_inode(self) -> int:
        """Identity of the network namespace, as /proc/PID/ns/net shows it."""
        path = f"/run/netns/{self.name}" if self.name else "/proc/self/ns/net"
        return os.stat(path).st_ino

    def udp_datagrams(self) -> int:
        """Udp InDatagrams plus Udp6InDatagrams: datagrams that sockets here have read."""
        text = run(*self.command("cat", "/proc/net/snmp", "/proc/net/snmp6"))
        return parse_udp_datagrams(text)


def parse_udp_datagrams(text: str) -> int:
    """Out of /proc/net/snmp followed by /proc/net/snmp6."""
    total = 0
    names: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["Udp:"]:
            if not names:
                names = words
            else:
                total += int(words[names.index("InDatagrams")])
        elif words[:1] == ["Udp6InDatagrams"]:
            total += int(words[1])
    return total


class Lab:
    """`fwd` has the interfaces in0 and out0; `fwd_addresses` are its addresses in that order, and
    `other_addresses` those of IPv6 that a `dual` stack has besides."""

    def __init__(
        self,
        *,
        ipv6: bool = False,
        dual: bool = False,
        queues: int = 1,
        prefix: str = "vcdemo",
        mtu: int = 1500,
    ) -> None:
        stem = f"{prefix}{os.getpid()}"
        net = NET6 if ipv6 else "10.77.{}.{}"
        self.ipv6 = ipv6
        self.queues = queues
        self.mtu = mtu
        self.pub = Host(f"{stem}-pub", net.format(1, 2))
        self.fwd = Host(f"{stem}-fwd", net.format(1, 1))
        self.sub = Host(f"{stem}-sub", net.format(2, 2))
        self.fwd_addresses = [net.format(1, 1), net.format(2, 1)]
        self.other_addresses = [NET6.format(k, 1) for k in (1, 2)] if dual else []
        self.interfaces = ["in0", "out0"]
        self._made = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _build(self) -> None:
        for host in (self.pub, self.fwd, self.sub):
            run("ip", "netns", "add", host.name)
            self._made.callback(run, "ip", "netns", "del", host.name)
            run("ip", "-n", host.name, "link", "set", "lo", "up")
        ends = [
            (self.fwd, "in0", self.fwd_addresses[0], self.pub, "pub0", self.pub.address),
            (self.fwd, "out0", self.fwd_addresses[1], self.sub, "sub0", self.sub.address),
        ]
        queues = ("numtxqueues", str(self.queues), "numrxqueues", str(self.queues))
        for here, near, near_ip, there, far, far_ip in ends:
            peer = ("peer", "name", far, "netns", there.name, *queues)
            run("ip", "-n", here.name, "link", "add", near, *queues, "type", "veth", *peer)
            self._bring_up(here, near, near_ip)
            self._bring_up(there, far, far_ip)
        if self.other_addresses:
            self._add_ipv6()
        self._warm_up()

    def _add_ipv6(self) -> None:
        ends = ((self.pub, "pub0"), (self.sub, "sub0"))
        for gate, near, (host, far) in zip(
            self.other_addresses, self.interfaces, ends, strict=True
        ):
            here = f"{gate.removesuffix('1')}2"
            for name, interface, ip in ((self.fwd.name, near, gate), (host.name, far, here)):
                run("ip", "-n", name, "addr", "add", f"{ip}/64", "dev", interface, "nodad")
            run("ip", "-n", host.name, "route", "add", "default", "via", gate)

    def _bring_up(self, host: Host, interface: str, address: str) -> None:
        width, flags = ("64", ("nodad",)) if self.ipv6 else ("24", ())
        run(*host.command("ethtool", "-K", interface, "tx", "off", "gro", "off", "tso", "off"))
        run("ip", "-n", host.name, "link", "set", interface, "mtu", str(self.mtu), "up")
        run("ip", "-n", host.name, "addr", "add", f"{address}/{width}", "dev", interface, *flags)

    def _warm_up(self) -> None:
        """One datagram each way teaches both ends their neighbour, as a first check would."""
        send = (
            "import socket,sys\n"
            "s=socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET,2)\n"
            "s.sendto(b'',(sys.argv[1],9))"
        )
        for host, peer in (
            (self.pub, self.fwd_addresses[0]),
            (self.sub, self.fwd_addresses[1]),
        ):
            run(*host.command(sys.executable, "-c", send, peer))

    def close(self) -> None:
        """Removes the namespaces, and with them interfaces and programs.  Can be repeated."""
        self._made.close()


class Bpffs:
    """A bpffs of our own, mounted where the node keeps its pins."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mounted = False

    def __enter__(self) -> Self:
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        run("mount", "-t", "bpf", "vcfwd-demo", str(self._path))
        self._mounted = True
        return self

    def __exit__(self, *exc: object) -> None:
        if self._mounted:
            self._mounted = False
            run("umount", str(self._path))


def processes(name: str, command_has: str) -> list[int]:
    """Processes called `name` (as the kernel cuts it, 15 characters) whose command line or
    working files name `command_has`: those of this run and no others."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "comm").read_text().strip() != name[:15]:
                continue
            if command_has.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue  # it has just ended
    return found


def kill(pids: Sequence[int], number: int = signal.SIGKILL) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
