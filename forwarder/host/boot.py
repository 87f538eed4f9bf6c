"""What only the boot loader can give: isolated cores without a tick, without callbacks.

The file is written; the kernel's command line shows after the restart whether it counts.  vcfwd
never restarts a host.
"""

from __future__ import annotations

import errno
import shutil
import subprocess
from dataclasses import replace
from typing import ClassVar

from forwarder.host import cpulist, settings
from forwarder.host.root import Host
from forwarder.host.stage import (
    PERSISTENT,
    REBOOT,
    NotApplicable,
    Site,
    Stage,
    State,
    Step,
    Verdict,
)

FILE = "/etc/default/grub.d/60-vcfwd.cfg"
CLOCK = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
NOHZ = "/sys/devices/system/cpu/nohz_full"
GRUB = "/etc/default/grub"
ONCE = ("isolcpus", "nohz_full", "rcu_nocbs", "irqaffinity")
"""Words that count once."""
UPDATE_S = 120
"""Seconds that update-grub may take."""


class Boot(Stage):
    name = "boot"
    why = "only the boot loader can keep the tick and the scheduler off a core from the start"
    capability: ClassVar[str] = "CAP_DAC_OVERRIDE"

    def plan(self, site: Site) -> list[Step]:
        if not site.host.exists("/etc/default"):
            raise NotApplicable(
                f"there is no /etc/default here; the kernel's command line wants: {words(site)}"
            )
        text = f'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT {words(site)}"'
        then = " && update-grub" if _loader(site.host) else ""
        first = _others(site)
        why = f"{self.why}; {first}" if first else self.why
        return [
            replace(step, shell=f"{step.shell}{then}")
            for step in self.steps(
                site, f"file:{FILE}", text, why, risk=REBOOT, lifetime=PERSISTENT
            )
        ]

    def judge(self, site: Site, steps: list[Step]) -> Verdict:
        verdict = super().judge(site, steps)
        here = site.facts.cmdline.split()
        missing = [word for word in words(site).split() if word not in here]
        if verdict.state is State.NOT and not missing:
            sentence = f"the kernel runs with {words(site)}, but {FILE} does not say so"
            return Verdict(self.name, State.PARTLY, sentence)
        if verdict.state is State.OK and missing:
            by_hand = "" if _loader(site.host) else " (no update-grub here: tell your boot loader)"
            sentence = f"{FILE} is written: restart the host for {' '.join(missing)}{by_hand}"
            return Verdict(self.name, State.PARTLY, sentence)
        if first := _others(site):
            return Verdict(self.name, State.CONFLICT, f"{first} ({verdict.sentence})")
        if verdict.state is State.OK and (unheard := _unheard(site)):
            return Verdict(self.name, State.PARTLY, unheard)
        return verdict

    def init(self, host: Host, step: Step) -> None:
        super().init(host, step)
        _update(host)

    def revert(self, host: Host, key: str, value: str) -> None:
        super().revert(host, key, value)
        folder = host.path(FILE).parent
        if value == settings.ABSENT and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        _update(host)


def words(site: Site) -> str:
    """What the kernel's command line should have."""
    cpus, house = cpulist.show(site.layout.cpus), cpulist.show(site.layout.housekeeping)
    tsc = " tsc=reliable" if _steady_tsc(site.host) else ""
    return (
        f"isolcpus=managed_irq,domain,{cpus} nohz_full={cpus} rcu_nocbs={cpus} "
        f"irqaffinity={house} skew_tick=1 nosoftlockup{tsc}"
    )


def _others(site: Site) -> str:
    """Whose words come before ours: of a second isolcpus= that is another the kernel makes nothing.
    Those in our file, perhaps of an earlier plan, are ours.  Empty: nobody's."""
    ours = settings.read(site.host, f"file:{FILE}") or ""
    mine = {*words(site).split(), *ours.strip('"').split()}
    here = [word for word in site.facts.cmdline.split() if word.partition("=")[0] in ONCE]
    theirs = " ".join(word for word in here if word not in mine)
    if not theirs:
        return ""
    return f"{theirs} on the kernel's command line comes before ours: take it out of {GRUB}"


def _unheard(site: Site) -> str:
    """What the kernel did not take from its command line, by its own account; empty: nothing."""
    cpus = set(site.layout.cpus)
    if still := cpus - set(site.facts.isolated):
        return f"isolcpus= is given, and yet core {cpulist.show(still)} is not isolated"
    still = cpus - set(site.facts.nohz_full)
    if still and site.host.exists(NOHZ):
        return f"nohz_full= is given, and yet core {cpulist.show(still)} keeps its tick"
    return ""


def _steady_tsc(host: Host) -> bool:
    """Whether the clock needs no watchdog, which visits every core twice a second: the kernel took
    the TSC after it had watched it, and the processor says that nothing stops or changes it."""
    if host.read(CLOCK) != "tsc":
        return False
    for line in (host.read("/proc/cpuinfo") or "").splitlines():
        name, _, flags = line.partition(":")
        if name.strip() == "flags":
            return {"constant_tsc", "nonstop_tsc"} <= set(flags.split())
    return False


def _loader(host: Host) -> bool:
    """Whether update-grub brings the file to the boot loader; of a capture: taken for granted."""
    return not host.live or (shutil.which("update-grub") is not None and host.exists("/boot/grub"))


def _update(host: Host) -> None:
    """Makes the boot loader read the files, where there is one."""
    if not host.live or not _loader(host):
        return
    try:
        done = subprocess.run(
            ["update-grub"], capture_output=True, text=True, timeout=UPDATE_S, check=False
        )
    except subprocess.TimeoutExpired:
        late = f"update-grub: not done in {UPDATE_S} s"
        raise OSError(errno.ETIMEDOUT, late) from None
    if done.returncode != 0:
        raise OSError(errno.EIO, f"update-grub: {done.stderr.strip()[-200:]}")


STAGE = Boot()
