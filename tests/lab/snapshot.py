"""Runs on the lab node, with nothing of vcfwd: what the host is set to, as JSON on stdout.

    python3 - NIC... < snapshot.py

Wider than what `vcfwd tune` may touch: all of /proc/sys, the NICs as ethtool tells them, and
everything below the folders here that is a setting and no counter.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

FOLDERS = (
    "/proc/sys", "/sys/devices/system/cpu", "/sys/devices/system/node",
    "/sys/devices/virtual/workqueue", "/sys/devices/system/machinecheck",
    "/sys/kernel/mm", "/etc/systemd", "/etc/default", "/etc/security",
    "/etc/irqbalance.env", "/etc/sysctl.d", "/etc/modprobe.d", "/etc/udev", "/etc/vcfwd",
)  # fmt: skip
ETHTOOL = (["-l"], ["-g"], ["-k"], ["-c"], ["-x"], ["-a"], ["-n"],
           ["-n", "rx-flow-hash", "udp4"], ["-n", "rx-flow-hash", "udp6"])  # fmt: skip
COUNTERS = re.compile(
    r"/(meminfo|numastat|vmstat|statistics/\w+|carrier_changes|carrier_(up|down)_count"
    r"|cpuidle/state\d+/(time|usage|above|below|rejected)|cpuidle/state\d+/s2idle/\w+"
    r"|random/(uuid|entropy_avail)|inode-(nr|state)|file-nr|dentry-state|aio-nr|ns_last_pid"
    r"|pty/nr|nf_conntrack_count|quota/\w+|keys/\w+|free_hugepages|surplus_hugepages"
    r"|khugepaged/(pages_collapsed|full_scans)|hugepages-\w+/stats/\w+|ksm/\w+|lru_gen/\w+"
    r"|byte_queue_limits/\w+|tx_timeout|msi_irqs/\w+|uevent)$"
)
"""What counts, or names something anew each time; whatever else differs is a setting that does."""
FILE_MAX = 65536
"""Bytes of a file that are looked at."""
CURSOR = "/sys/class/graphics/fbcon/cursor_blink"
CURSOR_READS = 20
"""At most, 50 ms apart."""


def text(path: str) -> str | None:
    """The file's words; None: it cannot be read, or only written."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return os.read(descriptor, FILE_MAX).decode(errors="replace").strip()
        finally:
            os.close(descriptor)
    except OSError:
        return None


def files(top: str) -> dict[str, str]:
    found = {}
    for folder, names, entries in os.walk(top):
        names[:] = [n for n in names if not os.path.islink(f"{folder}/{n}") and n != "power"]
        for entry in entries:
            path = f"{folder}/{entry}"
            if COUNTERS.search(path):
                continue
            if os.path.islink(path):
                found[path] = f"-> {os.readlink(path)}"
            elif (value := text(path)) is not None:
                found[path] = value
    return found


def cursor() -> dict[str, str]:
    """Whether the console's cursor may blink.

    The kernel tells no setting but whether the timer of a blink is pending (`show_cursor_blink` in
    drivers/video/fbdev/core/fbcon.c).  It is not while a blink is drawn, on a blank screen, and
    after a blink that found the console locked by a message, until words move the cursor again.
    So words are written, and 0 counts when it stays: what may not blink starts no timer."""
    if (value := text(CURSOR)) is None:
        return {}
    for _ in range(CURSOR_READS):
        if value == "1":
            break
        with open("/dev/tty0", "w") as console:
            console.write("\r")
        time.sleep(0.05)
        value = text(CURSOR) or ""
    return {CURSOR: value}


def cpusets() -> dict[str, str]:
    found = {}
    for folder, _, entries in os.walk("/sys/fs/cgroup"):
        for entry in entries:
            if entry.startswith("cpuset.cpus") or entry == "cgroup.subtree_control":
                found[f"{folder}/{entry}"] = text(f"{folder}/{entry}") or ""
    return found


def interrupts(nics: list[str]) -> dict[str, str]:
    """By name: numbers may change."""
    found = {}
    for line in (text("/proc/interrupts") or "").splitlines():
        words = line.split()
        if words and any(words[-1].startswith(nic) for nic in nics):
            number = words[0].rstrip(":")
            found[f"irq {words[-1]}"] = text(f"/proc/irq/{number}/smp_affinity_list") or ""
    found["irq default"] = text("/proc/irq/default_smp_affinity") or ""
    return found


def of_nic(nic: str) -> dict[str, str]:
    found = {}
    for words in ETHTOOL:
        line = ["ethtool", words[0], nic, *words[1:]]
        found[" ".join(line)] = said(line)
    here = os.path.realpath(f"/sys/class/net/{nic}")
    for path, value in files(here).items():
        if "/device/" not in path:
            found[path.replace(here, f"/sys/class/net/{nic}")] = value
    found[f"ip link {nic}"] = said(["ip", "-o", "-d", "link", "show", nic])
    return found


def said(line: list[str]) -> str:
    return subprocess.run(
        line, capture_output=True, text=True, timeout=30, check=False
    ).stdout.strip()


def main() -> None:
    nics = sys.argv[1:]
    found: dict[str, str] = {}
    for folder in FOLDERS:
        found.update(files(folder))
    for nic in nics:
        found.update(of_nic(nic))
    found.update(cursor())
    found.update(cpusets())
    found.update(interrupts(nics))
    json.dump(found, sys.stdout)


main()
