"""A cpuset of the workers' own, in which the scheduler balances nothing.

systemd: `vcfwd.slice` with AllowedCPUs=, the data plane in it with Delegate=cpuset, the partition
written on the slice when it is there (a raw cgroup is taken back by daemon-reload: measured).
Without systemd: a cgroup of our own.  A partition changes the mask of unbound workqueues as well:
their stage comes before.
"""

from __future__ import annotations

import errno
import subprocess
from dataclasses import replace

from forwarder.host import cpulist, settings
from forwarder.host.root import Host
from forwarder.host.stage import PERSISTENT, NotApplicable, Site, Stage, State, Step, Verdict

SLICE = "/etc/systemd/system/vcfwd.slice"
UNIT = "/etc/systemd/system/vcfwd-dataplane.service.d/60-vcfwd-slice.conf"
PARTITION = "/sys/fs/cgroup/vcfwd.slice/cpuset.cpus.partition"
V1, V2 = "/sys/fs/cgroup/cpuset/vcfwd", "/sys/fs/cgroup/vcfwd"
SYSTEMCTL_S = 100
"""Seconds that systemctl may take: it waits for a job of systemd's, which has 90."""


class Isolation(Stage):
    name = "isolation"
    why = "other tasks on a worker's core stop the worker"

    def plan(self, site: Site) -> list[Step]:
        cpus = cpulist.show(site.layout.cpus)
        nodes = cpulist.show(worker.node for worker in site.layout.workers)
        if not set(site.facts.nodes) or not site.facts.cgroup:
            raise NotApplicable("the kernel has no cpusets mounted here")
        if site.facts.systemd and site.facts.cgroup == "v2":
            return self._systemd(site, cpus)
        kind, here = ("v1", V1) if site.facts.cgroup == "v1" else ("v2", V2)
        found: list[Step] = []
        for key, value in (
            (f"dir:{here}", settings.PRESENT),
            (f"cpus:{here}/cpuset.cpus", cpus),
            (f"cpus:{here}/cpuset.mems", nodes),
            (f"text:{here}/cpuset.cpu_exclusive", "1") if kind == "v1"
            else (f"text:{here}/cpuset.cpus.partition", "isolated"),
        ):  # fmt: skip
            found += self._in_cgroup(site, key, value)
        return found

    def _in_cgroup(self, site: Site, key: str, value: str) -> list[Step]:
        """A file of a cgroup that may not be there yet."""
        found = list(self.steps(site, key, value))
        if found:
            return found
        line = settings.shell(site.host, key, value)
        return [Step(self.name, key, settings.ABSENT, value, self.why, line)]

    def _systemd(self, site: Site, cpus: str) -> list[Step]:
        unit = "[Service]\nSlice=vcfwd.slice\nDelegate=cpuset"
        text = f"[Unit]\nDescription=vcfwd: cores of the workers\n\n[Slice]\nAllowedCPUs={cpus}"
        found = list(self.steps(site, f"file:{SLICE}", text, lifetime=PERSISTENT))
        found += self.steps(site, f"file:{UNIT}", unit, lifetime=PERSISTENT)
        then = "systemctl daemon-reload && systemctl start vcfwd.slice"
        found = [replace(step, shell=f"{step.shell} && {then}") for step in found]
        return found + self._in_cgroup(site, f"text:{PARTITION}", "isolated")

    def judge(self, site: Site, steps: list[Step]) -> Verdict:
        verdict = super().judge(site, steps)
        missing = set(site.layout.cpus) - set(site.facts.isolated)
        if verdict.state is State.NOT and not missing:
            cpus = cpulist.show(site.layout.cpus)
            sentence = f"core {cpus} is isolated since boot; the cpuset is not there"
            return Verdict(self.name, State.PARTLY, sentence)
        return verdict

    def init(self, host: Host, step: Step) -> None:
        super().init(host, step)
        if step.key.startswith("file:"):
            _systemctl(host, "daemon-reload")
            _systemctl(host, "start", "vcfwd.slice")

    def revert(self, host: Host, key: str, value: str) -> None:
        if key == f"file:{SLICE}" and value == settings.ABSENT:
            _systemctl(host, "stop", "vcfwd.slice")
        super().revert(host, key, value)
        if key.startswith("file:"):
            _systemctl(host, "daemon-reload")


def _systemctl(host: Host, *words: str) -> None:
    if not host.live:  # a capture has no systemd: the slice's cgroup comes and goes as files
        folder = PARTITION.rpartition("/")[0]
        if words == ("start", "vcfwd.slice"):
            host.make_directory(folder)
        elif words == ("stop", "vcfwd.slice") and host.exists(folder):
            host.remove_directory(folder)
        return
    line = ["systemctl", *words]
    try:
        done = subprocess.run(
            line, capture_output=True, text=True, timeout=SYSTEMCTL_S, check=False
        )
    except subprocess.TimeoutExpired:
        late = f"{' '.join(line)}: no answer in {SYSTEMCTL_S} s"
        raise OSError(errno.ETIMEDOUT, late) from None
    if done.returncode != 0:
        raise OSError(errno.EIO, f"systemctl {' '.join(words)}: {done.stderr.strip()[:200]}")


STAGE = Isolation()
