"""What /proc tells of the machine and of a host's sockets."""

from __future__ import annotations

from pathlib import Path

from forwarder.demo.namespaces import Host, run


def unread(host: Host, port: int) -> int:
    """Bytes waiting in the UDP sockets of that port, out of /proc/net/udp and udp6."""
    total = 0
    for line in run(*host.command("cat", "/proc/net/udp", "/proc/net/udp6")).splitlines():
        words = line.split()
        if words[0] != "sl" and int(words[1].rpartition(":")[2], 16) == port:
            total += int(words[4].partition(":")[2], 16)
    return total


def cpu_times() -> str:
    return Path("/proc/stat").read_text()


def idle_share(before: str, after: str) -> float:
    """Of the processors' time between two readings of /proc/stat, 0 to 1 (proc(5))."""
    now, then = (
        [int(word) for word in text.split("\n", 1)[0].split()[1:9]] for text in (after, before)
    )
    spent = [one - other for one, other in zip(now, then, strict=True)]
    return (spent[3] + spent[4]) / sum(spent) if sum(spent) > 0 else 1.0
