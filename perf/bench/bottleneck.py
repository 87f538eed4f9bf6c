"""A slow link one hop behind the forwarder: why pacing matters.

    fwd out0 ---- sub0 sub sub1 ---- far0 far

`sub` routes, and its sub1 has a TBF with a shallow buffer.  The shaper must not be on the
forwarder's own interface: AF_XDP transmit skips the qdisc there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from perf.bench import vcfwd
from perf.bench.gatherings import HD, HD_SIZE
from perf.bench.lab import PORT_BASE, Lab, Receiver, run, say
from perf.bench.relay import Case

RATE_MBIT, BURST_BYTES, LIMIT_BYTES = 4, 5_000, 24_000
LEG_RATE = 3_700_000
"""Bits a second of UDP payload; 3.85 Mb/s with headers: above the stream's 2.6, below the link."""
FAR_NET = "10.231.3"


@contextmanager
def slow_link(lab: Lab) -> Iterator[str]:
    """The far host's address; its namespace is named in lab.names as far_ns."""
    sub, far = lab.netns("sub"), f"{lab.prefix}-far"
    run("ip", "netns", "add", far)
    try:
        run("ip", "link", "add", "sub1", "netns", sub, "type", "veth", "peer", "name", "far0",
            "netns", far)  # fmt: skip
        for netns, name, last in ((sub, "sub1", 1), (far, "far0", 2)):
            run(
                "nsenter",
                f"--net=/run/netns/{netns}",
                "ethtool",
                "-K",
                name,
                "tx",
                "off",
                "gro",
                "off",
            )
            run("ip", "-n", netns, "addr", "add", f"{FAR_NET}.{last}/24", "dev", name)
            run("ip", "-n", netns, "link", "set", name, "up")
        mac = run("ip", "-n", far, "-br", "link", "show", "far0").split()[2]
        run("ip", "-n", sub, "neigh", "replace", f"{FAR_NET}.2", "lladdr", mac, "dev", "sub1",
            "nud", "permanent")  # fmt: skip
        run("nsenter", f"--net=/run/netns/{sub}", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        shaper = ("tbf", "rate", f"{RATE_MBIT}mbit", "burst", BURST_BYTES, "limit", LIMIT_BYTES)
        run("tc", "-n", sub, "qdisc", "add", "dev", "sub1", "root", *shaper)
        lab.names |= {"far_ns": far, "far_if": "far0"}
        yield f"{FAR_NET}.2"
    finally:
        run("ip", "netns", "del", far)


def through(lab: Lab, far_ip: str, rate_bps: int, seconds: float) -> dict[str, Any]:
    """One stream to one receiver behind the link; rate 0: unpaced."""
    relay = vcfwd.Xsk(lab, Case(1, HD_SIZE))
    relay.far_ip = far_ip
    relay.start()
    try:
        relay.set_rate(rate_bps)
        times = lab.folder / "bottleneck.times"
        with Receiver(lab, 1, place="far", base=PORT_BASE, times=times) as receiver:
            before = receiver.packets()
            generator = relay.generate(seconds=seconds, times=times, **HD)
            time.sleep(0.1)
            receiver.ask("measure")
            sent = relay.finish(generator)
            got = receiver.settled() - before
            seen = receiver.ask("finish")["measured"]
    finally:
        relay.stop()
    keep = ("delay", "pdv", "frame", "frames", "frames_whole")
    say(
        f"  bottleneck, {'paced' if rate_bps else 'unpaced'}: "
        f"{sent['sent'] - got} of {sent['sent']} lost"
    )
    return {"sent": sent["sent"], "lost": sent["sent"] - got, **{name: seen[name] for name in keep}}


def measure(lab: Lab, seconds: float) -> dict[str, Any]:
    """Both ways, and the link."""
    with slow_link(lab) as far_ip:
        paced = through(lab, far_ip, LEG_RATE, seconds)
        unpaced = through(lab, far_ip, 0, seconds)
    link = {"rate_mbit": RATE_MBIT, "burst_bytes": BURST_BYTES, "limit_bytes": LIMIT_BYTES}
    return {"paced": paced, "unpaced": unpaced, "link": link, "leg_rate_bps": LEG_RATE}
