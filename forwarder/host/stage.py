"""The shape of a concern of the host, and what it is asked with.

A stage has a name, a sentence why it matters, the capability that its writes need, and:

    plan(site)    every step that applies here, those already met too; NotApplicable says why none
    check(site)   a verdict in one sentence; needs no privileges and changes nothing
    init(host, step)          makes the step; revert(host, key, value) puts a value back

A step is one setting (settings.py).  Most stages only plan: the rest follows from their steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from forwarder.errors import HostError
from forwarder.host import settings
from forwarder.host.drivers import Drivers
from forwarder.host.facts import Facts, Nic
from forwarder.host.layout import Layout
from forwarder.host.root import Host, Unreadable

UNKNOWN = "unknown (needs root)"
SAFE, RESETS, REBOOT = "safe", "resets-link", "needs-reboot"
RUNTIME, PERSISTENT = "run-time", "persistent"
SHOWN_MAX = 40
"""Characters of a value in a sentence: an RSS table has hundreds."""


class State(StrEnum):
    """What a check can find."""

    OK = "ok"
    PARTLY = "partly"
    NOT = "not"
    NOT_APPLICABLE = "not-applicable"
    UNKNOWN = "unknown"
    CONFLICT = "conflict"


@dataclass(frozen=True)
class Verdict:
    stage: str
    state: State
    sentence: str


@dataclass(frozen=True)
class Step:
    """One setting: what it is (None: only root may know), what it should be, and why.

    `lifetime`: a run-time value dies with the boot, a persistent one (a file) does not."""

    stage: str
    key: str
    current: str | None
    wanted: str
    why: str
    shell: str
    risk: str = SAFE
    lifetime: str = RUNTIME

    @property
    def met(self) -> bool:
        return self.current == self.wanted


@dataclass(frozen=True)
class Wishes:
    """What the configuration says of the data plane that the host is made ready for."""

    busy_poll: bool = False
    fifo: bool = False
    fifo_asked: bool = False  # by name, not as `auto` found it
    packet_frames: int = 8192  # for each worker
    port: int = 4433
    interrupts: str = "housekeeping"


@dataclass(frozen=True)
class Site:
    """A host, what it should become, and which NICs that is about.

    `guarded`: management NICs that were not asked for: no step that resets their link."""

    host: Host
    facts: Facts
    layout: Layout
    nics: tuple[Nic, ...]
    drivers: Drivers
    wishes: Wishes = field(default_factory=Wishes)
    management: dict[str, str] = field(default_factory=dict)
    guarded: frozenset[str] = frozenset()
    vlan_parents: frozenset[str] = frozenset()
    confirmed: bool = False


class NotApplicable(HostError):
    """The host has no such thing, or none that may be changed; the text says why."""


class Stage:
    """See the module."""

    name: ClassVar[str]
    why: ClassVar[str]
    capability: ClassVar[str] = "CAP_SYS_ADMIN"
    after_attach: ClassVar[bool] = False
    """Attaching XDP, a link flap and a change of channels undo it: run again after each."""

    def plan(self, site: Site) -> list[Step]:
        raise NotApplicable(f"{self.name} plans nothing")

    def check(self, site: Site) -> Verdict:
        try:
            steps = self.plan(site)
        except NotApplicable as reason:
            return Verdict(self.name, State.NOT_APPLICABLE, str(reason))
        except Unreadable as reason:
            return Verdict(self.name, State.UNKNOWN, f"needs root: {reason}")
        except HostError as reason:
            return Verdict(self.name, State.UNKNOWN, str(reason))
        return self.judge(site, steps)

    def judge(self, site: Site, steps: list[Step]) -> Verdict:
        unmet = [step for step in steps if step.current is not None and not step.met]
        unknown = [step for step in steps if step.current is None]
        if unmet:
            state = State.NOT if len(unmet) == len(steps) else State.PARTLY
            return Verdict(self.name, state, _told(unmet, len(steps)))
        if unknown:
            return Verdict(
                self.name, State.UNKNOWN, f"needs root: {len(unknown)} of {len(steps)} settings"
            )
        return Verdict(self.name, State.OK, self.fine(steps))

    def fine(self, steps: list[Step]) -> str:
        """The sentence when all is well."""
        shown = ", ".join(dict.fromkeys(_place(step) for step in steps[:3]))
        more = f" and {len(steps) - 3} more" if len(steps) > 3 else ""
        return f"as wanted: {shown}{more}"

    def init(self, host: Host, step: Step) -> None:
        settings.write(host, step.key, step.wanted)

    def revert(self, host: Host, key: str, value: str) -> None:
        settings.write(host, key, value)

    def later(self, host: Host, key: str, value: str) -> bool:
        """Whether the kernel does by itself what was written, as soon as others let it."""
        return False

    def goes(self, key: str) -> bool:
        """Whether the setting comes and goes with a directory of the stage's: it had no value
        before, whatever a new directory shows."""
        return False

    def leave(self, host: Host, key: str) -> None:
        """Instead of `revert` for a value that was not there before and goes with its directory:
        what must be done where the directory lives on."""

    # ---- for stages --------------------------------------------------------------------------

    def steps(
        self,
        site: Site,
        key: str,
        wanted: str,
        why: str = "",
        *,
        risk: str = SAFE,
        lifetime: str = RUNTIME,
    ) -> Iterator[Step]:
        """The step of a setting; none where the host has no such setting, or it may not be
        touched now."""
        nic = settings.nic_of(key)
        if risk == RESETS and nic in site.guarded:
            return
        try:
            current = settings.read(site.host, key)
        except Unreadable:
            current = None
        else:
            if current is None:
                return
        reason = why or self.why
        if risk == RESETS:
            reason = f"{reason} ({site.drivers.outage(nic, site.facts)})"
        elif risk == REBOOT:
            reason = f"{reason} (counts after a restart of the host)"
        line = settings.shell(site.host, key, wanted)
        yield Step(self.name, key, current, wanted, reason, line, risk, lifetime)

    def found(self, steps: list[Step], otherwise: str) -> list[Step]:
        """The steps; NotApplicable when there are none."""
        if not steps:
            raise NotApplicable(otherwise)
        return steps

    def each_nic(self, site: Site) -> tuple[Nic, ...]:
        """The NICs; NotApplicable when there are none."""
        if not site.nics:
            raise NotApplicable("there is no NIC to tune: name one with --nic")
        return site.nics

    def nothing(self, site: Site, what: str, by: str = "") -> str:
        """Why no NIC has a step; `by`: what of it resets the link of some drivers."""
        names = ", ".join(nic.name for nic in site.nics)
        guarded = sorted(
            nic.name
            for nic in site.nics
            if nic.name in site.guarded and by and site.drivers.resets(nic, by)
        )
        if guarded:
            name = guarded[0]
            return (
                f"{name} {what}, or only by a reset of its link, and {site.management[name]}: "
                f"--nic {name} with --confirm SECONDS does it"
            )
        return f"{names} {what}"


def _place(step: Step) -> str:
    kind, rest = settings.split(step.key)
    name = rest if kind in ("ethtool", "irq") else rest.rsplit("/", 1)[-1]
    if kind == "file":
        return f"{name} is there" if step.wanted != settings.ABSENT else f"no {name}"
    return f"{name} {step.wanted or '(nobody)'}"


def _told(unmet: list[Step], count: int) -> str:
    first = unmet[0]
    kind, rest = settings.split(first.key)
    if kind == "file":
        text = f"{rest} is not as wanted"
    else:
        wanted = first.wanted or "(nobody)"
        now = first.current or "(nobody)"
        now = now if len(now) <= SHOWN_MAX else f"{now[: SHOWN_MAX - 3]}..."
        text = f"{rest} is {now}, wanted {wanted}"
    more = f"; {len(unmet)} of {count} settings to do" if count > 1 else ""
    return f"{text}{more}"
