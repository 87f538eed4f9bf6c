"""Facts and plans in words and in JSON."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from forwarder.errors import HostError
from forwarder.host import cpulist
from forwarder.host.facts import Facts, Nic
from forwarder.host.root import printable
from forwarder.host.site import Survey
from forwarder.host.stage import UNKNOWN, NotApplicable, Step
from forwarder.host.stages import STAGES


def steps(survey: Survey) -> list[Step]:
    """Every step that applies, met or not, in order."""
    found: list[Step] = []
    for stage in STAGES:
        with suppress(HostError):  # not applicable, or plan_notes tells
            found += stage.plan(survey.site)
    return found


def plan_json(survey: Survey) -> dict[str, Any]:
    """What programs read; the sentences that explain it are `plan_notes`."""
    layout = survey.site.layout
    return {
        "workers": list(layout.cpus),
        "housekeeping": list(layout.housekeeping),
        "steps": [
            {
                "stage": step.stage,
                "current": UNKNOWN if step.current is None else printable(step.current),
                "wanted": printable(step.wanted),
                "why": step.why,
                "shell": step.shell,
                "risk": step.risk,
            }
            for step in steps(survey)
        ],
    }


def plan_notes(survey: Survey) -> list[str]:
    """Why these cores, and which stages could not be planned."""
    notes = [*survey.notes, *survey.site.layout.why]
    for stage in STAGES:
        try:
            stage.plan(survey.site)
        except NotApplicable:
            continue
        except HostError as reason:
            notes.append(f"{stage.name} is not planned: {reason}")
    return notes


def plan_lines(survey: Survey) -> list[str]:
    layout = survey.site.layout
    lines = [
        f"workers       {cpulist.show(layout.cpus)}",
        f"housekeeping  {cpulist.show(layout.housekeeping)}",
        f"supervisor    {cpulist.show(layout.supervisor)}",
        *(f"  {why}" for why in plan_notes(survey)),
    ]
    stage = ""
    for step in steps(survey):
        if step.stage != stage:
            stage = step.stage
            lines += ["", stage]
        now = UNKNOWN if step.current is None else step.current or "(nobody)"
        change = "is so" if step.met else f"{_short(now)} -> {_short(step.wanted or '(nobody)')}"
        lines.append(f"  {change}  [{step.risk}] {step.why}")
        lines.append(f"    {step.shell}")
    return lines


def _short(value: str) -> str:
    value = printable(value)
    line = value.partition("\n")[0]
    return line if line == value and len(line) <= 40 else f"{line[:37]}..."


def shown(facts: Facts) -> list[str]:
    """The host for people."""
    threads = {cpu.siblings for cpu in facts.cpus}
    lines = [f"kernel    {facts.kernel}", f"smt       {facts.smt}"]
    for node, cpus in facts.nodes.items():
        lines.append(f"node {node}    processors {cpulist.show(cpus) or '(none)'}")
    lines.append(
        f"cores     {len(threads)}: " + "  ".join(cpulist.show(s) for s in sorted(threads))
    )
    for cache in sorted({(cpu.cache, cpu.cache_size) for cpu in facts.cpus if cpu.cache}):
        lines.append(f"cache     {cpulist.show(cache[0])}: {cache[1]}")
    isolated = cpulist.show(facts.isolated) or "none"
    lines.append(f"isolated  {isolated}; without a tick {cpulist.show(facts.nohz_full) or 'none'}")
    lines.append(f"cpusets   {facts.cgroup or 'none'}{', systemd' if facts.systemd else ''}")
    for nic in facts.nics.values():
        lines += ["", *_nic(nic)]
    return lines


def _nic(nic: Nic) -> list[str]:
    node = "unknown" if nic.node < 0 else str(nic.node)
    lines = [f"{nic.name}: {nic.kind}, driver {nic.driver or '(none)'}, node {node}, MTU {nic.mtu}"]
    lines.append(f"  queues {nic.queues} of {nic.queues_max}")
    rings = nic.ethtool.get("rings", {})
    if rings:
        lines.append(f"  rings  {', '.join(f'{k} {v}' for k, v in rings.items())}")
    if nic.vectors:
        named = (f"{v.number} {v.role}{v.queue if v.queue >= 0 else ''}" for v in nic.vectors)
        lines.append(f"  irqs   {', '.join(named)}")
    on = [n for n, f in nic.ethtool.get("features", {}).items() if f["on"] and not f["fixed"]]
    if on:
        lines.append(f"  on     {', '.join(on)}")
    return lines
