"""Applying and reverting: check, init, check again; journal first; stop at the first failure."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from forwarder.errors import HostError
from forwarder.host import settings
from forwarder.host.audit import Audit
from forwarder.host.irq import Managed
from forwarder.host.journal import Entry, Journal
from forwarder.host.root import Host
from forwarder.host.site import refreshed
from forwarder.host.stage import RESETS, NotApplicable, Site, Stage, State, Step
from forwarder.host.stages import BY_NAME

PASSES_MAX = 3
"""Times that a stage is planned again while its own steps make new ones."""
_CAPABILITIES = {"CAP_DAC_OVERRIDE": 1, "CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}

Tell = Callable[[str], None]


class Stopped(HostError):
    """A step failed; everything before it is done and journaled."""


@dataclass
class Done:
    """What an apply or a revert did."""

    changed: int = 0
    left: int = 0
    failed: int = 0


def unmet(site: Site, stages: Sequence[Stage]) -> list[Step]:
    """Every step that is to be done, in order; unknown ones among them."""
    found: list[Step] = []
    for stage in stages:
        try:
            found += [step for step in stage.plan(site) if not step.met]
        except NotApplicable:
            continue
    return found


def may_apply(site: Site, stages: Sequence[Stage]) -> None:
    """HostError, with one sentence, when nothing should be touched."""
    todo = unmet(site, stages)
    for step in todo:
        nic = settings.nic_of(step.key)
        if step.risk == RESETS and nic in site.management and not site.confirmed:
            raise HostError(
                f"{step.stage}: {nic} is a management NIC ({site.management[nic]}) and this "
                f"{site.drivers.outage(nic, site.facts)}: --confirm SECONDS does it and takes "
                "it back unless `vcfwd tune confirm` comes in time"
            )
    if site.host.live:
        for stage in stages:
            if any(step.stage == stage.name for step in todo) and not capable(stage.capability):
                raise HostError(
                    f"{stage.name} needs {stage.capability}: run this as root; nothing is changed"
                )


def capable(name: str) -> bool:
    """Whether this process has a capability (CapEff of /proc/self/status)."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAPABILITIES[name] & 1)
    return False


def apply(
    site: Site, stages: Sequence[Stage], journal: Journal, audit: Audit, tell: Tell, run: str
) -> Done:
    """With the journal's lock held; `run` names it in the journal.  Stopped: which step failed,
    and how to go on."""
    done = Done()
    archived = journal.archive()
    if archived:
        tell(f"{archived} settings of an earlier boot are archived: they went with it")
    site = refreshed(site)
    for stage in stages:
        before = done.changed
        try:
            _stage(site, stage, journal, audit, run, done, tell)
            if done.changed != before:  # new interrupts, other cores: the next stage plans on them
                site = refreshed(site)
            verdict = stage.check(site)
        except HostError as error:
            audit.add(f"apply {stage.name}", f"failed: {error}", stage=stage.name)
            raise Stopped(
                f"{error}. {done.changed} settings are done and journaled: mend it and run "
                f"`vcfwd tune apply` again, leave it out, or take all back by `vcfwd tune revert`"
            ) from error
        if verdict.state is not State.NOT_APPLICABLE:
            change = done.changed - before
            tell(f"{stage.name}: {verdict.state}: {verdict.sentence} ({change} changed)")
    audit.add("apply", f"{done.changed} settings changed", run=run)
    journal.asked(stages, [nic.name for nic in site.nics], site.layout.cpus)
    return done


def renew(
    site: Site, stages: Sequence[Stage], journal: Journal, audit: Audit, tell: Tell, tried: set[str]
) -> int:
    """Stages again after an attach, a link or a channel event: only what they plan now and the
    journal does not know, such as the interrupts of a link that came up.  With the lock held.

    `tried`: keys that are left out; grows.  How many were set; a failure is told, and ends it."""
    done = Done()
    tried |= {entry.key for entry in journal.current()}
    for stage in stages:
        try:
            _stage(site, stage, journal, audit, "watch", done, tell, tried)
        except HostError as error:
            tell(f"{stage.name}: {error}")
            audit.add(f"watch {stage.name}", f"failed: {error}", stage=stage.name)
    return done.changed


def _stage(
    site: Site, stage: Stage, journal: Journal, audit: Audit, run: str, done: Done, tell: Tell,
    tried: set[str] | None = None,
) -> None:  # fmt: skip
    tried = set() if tried is None else tried
    for _ in range(PASSES_MAX):
        try:
            steps = [step for step in stage.plan(site) if not step.met and step.key not in tried]
        except NotApplicable:
            return
        if not steps:
            return
        for step in steps:
            tried.add(step.key)
            now = settings.read(site.host, step.key)
            if now == step.wanted:  # an earlier step of this stage brought it along
                continue
            old = settings.ABSENT if now is None or stage.goes(step.key) else now
            number = journal.intend(run, step, old)
            if _make(site.host, stage, step, now, tell):
                journal.note(number, "done")
                audit.add(f"{step.key}: {now} -> {step.wanted}", "done", stage=stage.name)
                done.changed += 1
            else:
                journal.note(number, "left")
                audit.add(step.key, "managed by its driver", stage=stage.name)
                done.left += 1


def _make(host: Host, stage: Stage, step: Step, old: str | None, tell: Tell) -> bool:
    """The step, read back; a value that is taken in part (huge pages when memory is short) is put
    back at once.  False: the driver keeps it for itself."""
    try:
        stage.init(host, step)
    except Managed as reason:
        tell(f"{stage.name}: {reason.strerror}")
        return False
    except OSError as error:
        nic = settings.nic_of(step.key)
        if error.errno == errno.ENOENT and nic and not host.exists(f"/sys/class/net/{nic}"):
            error.errno = errno.ENODEV  # its files went with it
        raise Stopped(f"{stage.name}: {step.key} cannot be set: {explain(error)}") from error
    now = settings.read(host, step.key)
    if now != step.wanted:
        shown = "gone" if now is None else repr(now)
        if now is not None and old is not None and now != old:
            with suppress(OSError):
                stage.revert(host, step.key, old)
        raise Stopped(
            f"{stage.name}: {step.key} was set to {step.wanted!r} without an error and is {shown}"
        )
    return True


def explain(error: OSError) -> str:
    """The kernel's reason, in words that help."""
    known = {
        errno.EROFS: "the file system is read-only (a container?)",
        errno.EOPNOTSUPP: "the driver does not do that",
        errno.EBUSY: "the driver is busy with something else (RDMA, zero-copy sockets?)",
        errno.ENODEV: "the NIC has gone",
        errno.EPERM: "not permitted: run this as root",
        errno.EACCES: "not permitted: run this as root",
    }
    number = error.errno or 0
    return known.get(number) or error.strerror or os.strerror(number)


# ---- back again --------------------------------------------------------------------------------


def revert(
    host: Host,
    journal: Journal,
    audit: Audit,
    tell: Tell,
    *,
    force: bool = False,
    only: Callable[[Entry], bool] = lambda entry: True,
) -> Done:
    """In reverse, each read back; what somebody else changed since stays, unless `force`.

    With the journal's lock held."""
    done = Done()
    journal.forget()
    archived = journal.archive()
    if archived:
        tell(f"{archived} settings of an earlier boot are archived: they went with it")
    for entry in reversed([entry for entry in journal.live() if only(entry)]):
        try:
            outcome = _put_back(host, entry, force)
        except (OSError, HostError) as error:
            reason = explain(error) if isinstance(error, OSError) else str(error)
            tell(f"{entry.stage}: {entry.key} cannot be put back to {entry.old!r}: {reason}")
            audit.add(f"revert {entry.key}", f"failed: {reason}", stage=entry.stage)
            done.failed += 1
            continue
        if outcome:
            tell(f"{entry.stage}: {entry.key}: {outcome}")
            audit.add(f"revert {entry.key}", outcome, stage=entry.stage)
            done.left += 1
            continue
        journal.note(entry.number, "reverted")
        audit.add(f"revert {entry.key}", f"is {entry.old} again", stage=entry.stage)
        done.changed += 1
    audit.add("revert", f"{done.changed} back, {done.left} left alone, {done.failed} failed")
    return done


def _put_back(host: Host, entry: Entry, force: bool) -> str:
    """Empty: it has its old value; else why it was left alone."""
    now = settings.read(host, entry.key)
    if now == entry.old or (now is None and entry.old == settings.ABSENT):
        return ""
    if now is None:
        raise HostError("it is not there any more")
    if now not in entry.news and not force:
        return (
            f"somebody else set it to {now!r} since (we had {entry.news[-1]!r}): left alone; "
            "--force puts it back"
        )
    kind = settings.split(entry.key)[0]
    if entry.old == settings.ABSENT and kind not in ("file", "dir", "controller"):
        BY_NAME[entry.stage].leave(host, entry.key)
        return ""  # goes with its directory
    BY_NAME[entry.stage].revert(host, entry.key, entry.old)
    again = settings.read(host, entry.key)
    if again != entry.old and not BY_NAME[entry.stage].later(host, entry.key, entry.old):
        raise HostError(f"it was written without an error and is {again!r}")
    return ""
