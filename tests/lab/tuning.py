"""`vcfwd tune` on the lab node, and what the kernel says of it without vcfwd."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.machine import LabError, Machine
from tests.lab.service import Service

APPLY_S = 240.0
INSTALLED = "installed"  # the snapshot of conftest.py
JOURNAL = "/var/lib/vcfwd/tune/journal.jsonl"
_SNAPSHOT = Path(__file__).with_name("snapshot.py")
_IRQS = """cd /proc/irq; for n in $(grep -E '{nics}' /proc/interrupts | cut -d: -f1); do
 name=$(grep "^ *$n:" /proc/interrupts | awk '{{print $NF}}')
 echo $name $(cat $n/smp_affinity_list) $(cat $n/effective_affinity_list); done"""


@dataclass(frozen=True)
class Allowed:
    """What may be another after a revert; `values`: which it may have been and be then."""

    path: str
    values: str
    why: str


ALLOWED = (
    Allowed(
        r".*/cgroup\.subtree_control",
        r"(?:cpuset ?)?(.*) -> (?:cpuset ?)?\1",
        "systemd keeps a controller on that a unit once wanted",
    ),
    Allowed(
        r".*/cpuset\.cpus[\w.]*",
        r"(None|) -> (|member|0-3)",
        "the files of that controller, with the values of a group that wants nothing",
    ),
)
"""Nothing else may."""


def cpus(text: str) -> set[int]:
    """The processors of a list such as 0,2-3."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


@dataclass
class Tuned:
    """The node with both NICs up and configured; `names`: NIC 0 on NUMA node 0, NIC 1 on 1."""

    node: Machine
    names: list[str] = field(default_factory=list)
    service: Service = field(init=False)

    def __post_init__(self) -> None:
        self.service = Service(self.node, [0, 1], 2)
        self.service.configure()
        self.names = self.service.names
        self.until("both links are up", self.links_up)

    def links_up(self) -> bool:
        words = self.node.ssh(
            " ".join(["cat", *(f"/sys/class/net/{n}/operstate" for n in self.names)])
        )
        return words.split() == ["up", "up"]

    def until(self, what: str, true: Callable[[], bool], timeout_s: float = 60.0) -> None:
        end = time.monotonic() + timeout_s
        while not true():
            if time.monotonic() > end:
                raise LabError(f"after {timeout_s:g} s not so: {what}")
            time.sleep(0.5)

    # ---- the tool ---------------------------------------------------------------------------

    def run(self, words: str, timeout_s: float = APPLY_S) -> tuple[int, str]:
        """Exit status, and what it said on stdout and stderr."""
        text = self.node.ssh(f"vcfwd tune {words} 2>&1; echo status $?", timeout_s=timeout_s)
        said, _, status = text.rpartition("status ")
        return int(status), said

    def good(self, words: str, timeout_s: float = APPLY_S) -> str:
        status, said = self.run(words, timeout_s)
        assert status == 0, f"vcfwd tune {words}: {said}"
        return said

    def changed(self, words: str = "") -> int:
        """By an apply."""
        match = re.search(r"^(\d+) settings changed", self.good(f"apply {words}"), re.M)
        assert match
        return int(match[1])

    def check(self) -> dict[str, dict[str, Any]]:
        """Stage -> its verdict; `status` is under the empty name."""
        said = self.node.ssh("vcfwd tune check --json", check=False, timeout_s=APPLY_S)
        found = json.loads(said)
        return {"": {"status": found["status"]}, **{one["stage"]: one for one in found["stages"]}}

    def unsettled(self, verdicts: dict[str, dict[str, Any]] | None = None) -> dict[str, str]:
        """Stages that are neither ok nor out of the question -> their sentence."""
        return {
            name: f"{one['state']}: {one['sentence']}"
            for name, one in (verdicts or self.check()).items()
            if name and one["state"] not in ("ok", "not-applicable")
        }

    def plan(self) -> dict[str, Any]:
        said = self.node.ssh("vcfwd tune plan --json", timeout_s=APPLY_S)
        found: dict[str, Any] = json.loads(said)
        return found

    def journal(self) -> list[dict[str, Any]]:
        text = self.node.ssh(f"cat {JOURNAL} 2>/dev/null || true")
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    # ---- the kernel -------------------------------------------------------------------------

    def snapshot(self) -> dict[str, str]:
        said = self.node.ssh(
            f"python3 - {' '.join(self.names)}", data=_SNAPSHOT.read_bytes(), timeout_s=APPLY_S
        )
        found: dict[str, str] = json.loads(said)
        assert len(found) > 1000  # it saw the host
        return found

    def interrupts(self) -> dict[str, tuple[set[int], set[int]]]:
        """Name -> where it is allowed, where it is."""
        lines = self.node.ssh(_IRQS.format(nics="|".join(self.names))).splitlines()
        found = {}
        for line in lines:
            name, allowed, effective = line.split()
            found[name] = (cpus(allowed), cpus(effective))
        return found

    def threads(self) -> dict[str, tuple[set[int], int]]:
        """Worker thread -> where it may run, where it ran last (field 39 of stat)."""
        lines = self.node.ssh(
            "for t in /proc/$(pidof vcfwd-dataplane)/task/*; do echo $(cat $t/comm) "
            "$(grep Cpus_allowed_list $t/status | cut -f2) $(awk '{print $39}' $t/stat); done"
        ).splitlines()
        found = {}
        for name, allowed, last in (line.split() for line in lines):
            if name.startswith("vcfwd-w"):
                found[name] = (cpus(allowed), int(last))
        return found


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What is another than before, but for what ALLOWED names."""
    found = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old != new and not any(
            re.fullmatch(each.path, key) and re.fullmatch(each.values, f"{old} -> {new}")
            for each in ALLOWED
        ):
            found.append(f"{key}: {old!r} -> {new!r}")
    return found


def files_of(journal: list[dict[str, Any]]) -> set[str]:
    """The files that were to be written: kind:path is the key of such a step."""
    found = set()
    for line in journal:
        kind, _, path = line["key"].partition(":") if line["event"] == "intend" else ("", "", "")
        if kind in ("text", "mask", "choice", "file"):
            found.add(path)
    return found
