"""A cpuset of the workers' own, in which the scheduler balances nothing.

systemd: `vcfwd.slice` with AllowedCPUs=, the data plane in it with Delegate=cpuset, the partition
written on the slice when it is there (a raw cgroup is taken back by daemon-reload: measured).
Without systemd: cgroups of our own (cpuset.py), which the data plane joins.  A partition changes
the mask of unbound workqueues as well: their stage comes before.

Taking it back ends nobody: a service requires its slice, so a slice is stopped only when nothing
is in it, and who is in a cgroup that goes is moved up.
"""

from __future__ import annotations

import errno
import subprocess
from dataclasses import replace

from forwarder.host import cpulist, cpuset, settings
from forwarder.host.root import Host
from forwarder.host.stage import PERSISTENT, NotApplicable, Site, Stage, State, Step, Verdict

SLICE = "/etc/systemd/system/vcfwd.slice"
UNIT = "/etc/systemd/system/vcfwd-dataplane.service.d/60-vcfwd-slice.conf"
FOLDER = "/sys/fs/cgroup/vcfwd.slice"
PARTITION = f"{FOLDER}/cpuset.cpus.partition"
PARTED = f"threads:{cpuset.V1_REST}"
SYSTEMCTL_S = 100
"""Seconds that systemctl may take: it waits for a job of systemd's, which has 90."""
NAMED_MAX = 3
"""Threads that a sentence names."""


class Isolation(Stage):
    name = "isolation"
    why = "other tasks on a worker's core stop the worker"

    def plan(self, site: Site) -> list[Step]:
        if not set(site.facts.nodes) or not site.facts.cgroup:
            raise NotApplicable("the kernel has no cpusets mounted here")
        if site.facts.systemd and site.facts.cgroup == "v2":
            return self._systemd(site, cpulist.show(site.layout.cpus))
        return self._v1(site) if site.facts.cgroup == "v1" else self._v2(site)

    def _v1(self, site: Site) -> list[Step]:
        """Two cpusets; the scheduler balances in that of the others, and in no other."""
        every = {cpu.number for cpu in site.facts.cpus} - set(site.layout.cpus)
        others = every - set(site.layout.idle) or every
        if not others:
            raise NotApplicable("the only core works and keeps house")
        mems = site.host.read(f"{cpuset.V1_ROOT}/cpuset.mems") or cpulist.show(site.facts.nodes)
        found: list[Step] = []
        for key, value in (
            (f"dir:{cpuset.V1}", settings.PRESENT),
            (f"cpus:{cpuset.V1}/cpuset.cpus", cpulist.show(site.layout.cpus)),
            (f"cpus:{cpuset.V1}/cpuset.mems", self._memory(site, mems)),
            (f"text:{cpuset.V1}/cpuset.cpu_exclusive", "1"),
            (f"text:{cpuset.V1}/cpuset.sched_load_balance", "0"),
            (f"dir:{cpuset.V1_REST}", settings.PRESENT),
            (f"cpus:{cpuset.V1_REST}/cpuset.cpus", cpulist.show(others)),
            (f"cpus:{cpuset.V1_REST}/cpuset.mems", mems),
        ):
            found += self._in_cgroup(site, key, value)
        if site.host.live:
            found += self._in_cgroup(site, PARTED, cpuset.APART)
        key = f"text:{cpuset.V1_ROOT}/cpuset.sched_load_balance"
        return [*found, *self.steps(site, key, "0")]

    def _v2(self, site: Site) -> list[Step]:
        """A partition, which the kernel keeps others out of."""
        mems = site.host.read(f"{cpuset.V2_ROOT}/cpuset.mems.effective") or ""
        key = f"controller:{cpuset.V2_ROOT}/cgroup.subtree_control"
        found = list(self.steps(site, key, settings.PRESENT))
        for key, value in (
            (f"dir:{cpuset.V2}", settings.PRESENT),
            (f"cpus:{cpuset.V2}/cpuset.cpus", cpulist.show(site.layout.cpus)),
            (f"cpus:{cpuset.V2}/cpuset.mems", self._memory(site, mems)),
            (f"text:{cpuset.V2}/cpuset.cpus.partition", "isolated"),
        ):
            found += self._in_cgroup(site, key, value)
        return found

    def _memory(self, site: Site, there: str) -> str:
        """The workers' nodes, but for those without memory, which the kernel refuses."""
        nodes = {worker.node for worker in site.layout.workers}
        try:
            known = set(cpulist.parse(there))
        except ValueError:
            known = set()
        return cpulist.show(nodes & known or known or nodes)

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
        cpus = cpulist.show(site.layout.cpus)
        missing = set(site.layout.cpus) - set(site.facts.isolated)
        if verdict.state is State.NOT and not missing:
            sentence = f"core {cpus} is isolated since boot; the cpuset is not there"
            return Verdict(self.name, State.PARTLY, sentence)
        if verdict.state is State.UNKNOWN or not any(step.key == PARTED for step in steps):
            return verdict
        if {step.key for step in steps if not step.met} == {PARTED}:
            others, may = cpuset.strays(site.host), "may run"
            mend = "vcfwd tune apply isolation moves them"
        elif verdict.state is State.OK:
            others, may = cpuset.intruders(site.host, site.layout.cpus), "somebody pinned"
            mend = "pin them elsewhere (a data plane from before: restart it)"
        else:
            return verdict
        if not others:
            met = [step for step in steps if step.met]
            return Verdict(self.name, State.OK, self.fine(met))
        names = ", ".join(f"{each.name} ({each.number})" for each in others[:NAMED_MAX])
        more = f" and {len(others) - NAMED_MAX} more" if len(others) > NAMED_MAX else ""
        sentence = f"on core {cpus} {may} threads that are not the workers': {names}{more}: {mend}"
        return Verdict(self.name, State.PARTLY, sentence)

    def init(self, host: Host, step: Step) -> None:
        super().init(host, step)
        if not step.key.startswith("file:"):
            return
        _systemctl(host, "daemon-reload")
        _systemctl(host, "start", "vcfwd.slice")
        if step.key == f"file:{SLICE}":
            _confine(host, step.wanted.rpartition("AllowedCPUs=")[2])

    def goes(self, key: str) -> bool:
        rest = settings.split(key)[1]
        return any(rest.startswith(f"{ours}/") for ours in (cpuset.V1, cpuset.V1_REST, cpuset.V2))

    def leave(self, host: Host, key: str) -> None:
        """The slice lives on while somebody is in it: its cores are everybody's again."""
        if key == f"text:{PARTITION}" and host.exists(PARTITION):
            host.write(PARTITION, "member")

    def revert(self, host: Host, key: str, value: str) -> None:
        kind, rest = settings.split(key)
        if kind == "dir" and value == settings.ABSENT:
            cpuset.empty(host, rest)
        super().revert(host, key, value)
        if kind != "file":
            return
        _systemctl(host, "daemon-reload")
        if rest == SLICE and value == settings.ABSENT:
            if not _used(host):
                _systemctl(host, "stop", "vcfwd.slice")
            elif host.live and not _shown("AllowedCPUs", "vcfwd.slice"):
                _confine(host, "")


def _used(host: Host) -> bool:
    """Whether somebody is in the slice, or is about to be: to stop it would end them."""
    if "populated 1" in (host.read(f"{FOLDER}/cgroup.events") or ""):
        return True
    if not host.live:
        return False
    units = _shown("RequiredBy", "vcfwd.slice").split()
    states = _shown("ActiveState", *units).split() if units else []
    return any(state not in ("inactive", "failed") for state in states)


def _confine(host: Host, cpus: str) -> None:
    """Those in the slice to these cores (empty: all) at once, whether or not systemd does so for a
    slice that is up already when its files are read again."""
    file = f"{FOLDER}/cpuset.cpus"
    now = host.read(file)
    if now is not None and now != cpus:
        host.write(file, cpus)


def _shown(name: str, *units: str) -> str:
    """A property as systemd tells it."""
    return _run("systemctl", "show", "-P", name, *units).strip()


def _systemctl(host: Host, *words: str) -> None:
    if host.live:
        _run("systemctl", *words)
    elif words == ("start", "vcfwd.slice"):  # a capture has no systemd: its cgroup comes and goes
        host.make_directory(FOLDER)
    elif words == ("stop", "vcfwd.slice") and host.exists(FOLDER):
        host.remove_directory(FOLDER)


def _run(*line: str) -> str:
    """OSError: it failed, or gave no answer."""
    try:
        done = subprocess.run(
            line, capture_output=True, text=True, timeout=SYSTEMCTL_S, check=False
        )
    except subprocess.TimeoutExpired:
        late = f"{' '.join(line)}: no answer in {SYSTEMCTL_S} s"
        raise OSError(errno.ETIMEDOUT, late) from None
    if done.returncode != 0:
        raise OSError(errno.EIO, f"{' '.join(line)}: {done.stderr.strip()[:200]}")
    return done.stdout


STAGE = Isolation()
