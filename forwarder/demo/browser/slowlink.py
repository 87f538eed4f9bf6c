"""A slow link between a browser's host and the node: a router with token buckets.

    pub  pub0 ---- slow0  router  fast0 ---- in0  fwd

The buckets lie in the router: AF_XDP transmit skips the qdisc of its own interface, and a sender's
own qdisc would hold its packets back instead of losing them.  IPv4 only.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Self

from forwarder.demo.namespaces import Lab, run

NET = "10.77.9"
BURST, LATENCY = "4kb", "150ms"  # of a bucket, and of the queue before it


class SlowLink:
    """Stands between `lab.pub` and the node from `__enter__` on; the node is started after it."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._name = f"{lab.pub.name}-router"
        self._made = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self._made.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._made.close()

    def _build(self) -> None:
        pub, router, fwd = self._lab.pub.name, self._name, self._lab.fwd.name
        run("ip", "netns", "add", router)
        self._made.callback(run, "ip", "netns", "del", router)
        # The browser's end of the link becomes the router's; a new pair joins the two.
        run("ip", "-n", pub, "link", "set", "pub0", "netns", router, "name", "fast0")
        run(
            *("ip", "-n", router, "link", "add", "slow0", "type", "veth"),
            *("peer", "name", "pub0", "netns", pub),
        )
        for host, interface, address in (
            (router, "fast0", f"{self._lab.pub.address}/24"),
            (router, "slow0", f"{NET}.1/24"),
            (pub, "pub0", f"{NET}.2/24"),
        ):
            run(
                *("nsenter", f"--net=/run/netns/{host}", "ethtool", "-K", interface),
                *("tx", "off", "gro", "off", "tso", "off"),
            )
            run("ip", "-n", host, "addr", "add", address, "dev", interface)
            run("ip", "-n", host, "link", "set", interface, "up")
        run("nsenter", f"--net=/run/netns/{router}", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        run("ip", "-n", pub, "route", "add", "default", "via", f"{NET}.1")
        run("ip", "-n", fwd, "route", "add", f"{NET}.0/24", "via", self._lab.pub.address)

    def up(self, bits: int) -> None:
        """What the browser sends is limited to so many bits a second from now on."""
        self._limit("fast0", bits)

    def down(self, bits: int) -> None:
        """What the browser receives is limited to so many bits a second from now on."""
        self._limit("slow0", bits)

    def _limit(self, interface: str, bits: int) -> None:
        run(
            *("tc", "-n", self._name, "qdisc", "replace", "dev", interface, "root", "tbf"),
            *("rate", f"{bits}bit", "burst", BURST, "latency", LATENCY),
        )
