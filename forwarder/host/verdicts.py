"""All stages' verdicts, with those who fight for the same settings; and what `vcfwd up` quotes."""

from __future__ import annotations

from collections.abc import Sequence

from forwarder.config import Config
from forwarder.errors import VcfwdError
from forwarder.host import conflicts, cpulist, site, stages
from forwarder.host.root import Host, Unreadable
from forwarder.host.stage import Site, Stage, State, Verdict

TO_DO = (State.NOT, State.PARTLY, State.CONFLICT)


def check(where: Site, chosen: Sequence[Stage]) -> list[Verdict]:
    banned = cpulist.show((*where.layout.cpus, *where.layout.idle))
    try:
        others = conflicts.find(where.host, banned, cpulist.show(where.layout.housekeeping))
    except Unreadable:
        others = []
    found = []
    for stage in chosen:
        verdict = stage.check(where)
        rivals = [other for other in others if stage.name in other.stages]
        if rivals and verdict.state is not State.NOT_APPLICABLE:
            told = "; ".join(f"{r.who} sets this as well: {r.peace}" for r in rivals)
            verdict = Verdict(stage.name, State.CONFLICT, f"{told} ({verdict.sentence})")
        found.append(verdict)
    return found


def status(found: Sequence[Verdict]) -> int:
    """1: something is to be done; before 2: something could not be told; before 0: all well."""
    if any(verdict.state in TO_DO for verdict in found):
        return 1
    return 2 if any(verdict.state is State.UNKNOWN for verdict in found) else 0


def failing(config: Config) -> list[str]:
    """The sentences that `vcfwd up` quotes: what is to be done on this host, or could not be told.

    Never raises on purpose: a node runs on an untuned host all the same."""
    try:
        survey = site.survey(Host(), config, given=True)
        found = check(survey.site, stages.STAGES)
    except (VcfwdError, OSError, ValueError) as error:
        return [f"the host could not be checked: {error}"]
    return [
        f"{verdict.stage}: {verdict.state}: {verdict.sentence}"
        for verdict in found
        if verdict.state in (*TO_DO, State.UNKNOWN)
    ]
