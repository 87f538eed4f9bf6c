"""All stages, in the order in which they are applied; reverted in reverse.

Host stages first (what changes the workqueue mask after the workqueues), then the NIC's queues,
then what attaching XDP, a link flap or a change of channels puts back.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Final

from forwarder.errors import HostError
from forwarder.host import (
    boot,
    channels,
    coalesce,
    cstates,
    governor,
    hugepages,
    irq,
    irqbalance,
    isolation,
    memlock,
    napi,
    noise,
    ntuple,
    offloads,
    rings,
    rss,
    smt,
    sysctls,
    thp,
    threaded,
    workqueues,
    xps,
)
from forwarder.host.stage import Stage

STAGES: Final[tuple[Stage, ...]] = tuple(
    module.STAGE
    for module in (
        boot, workqueues, isolation, sysctls, noise, hugepages, thp, memlock, governor, cstates,
        smt, irqbalance,
        channels, rings, rss, ntuple, offloads, coalesce,
        irq, xps, napi, threaded,
    )
)  # fmt: skip
BY_NAME: Final = {stage.name: stage for stage in STAGES}


class NoSuchStage(HostError):
    """A stage that does not exist was asked for."""


def select(names: Sequence[str]) -> tuple[Stage, ...]:
    """The stages with these names, in their order; all of them for none."""
    for name in names:
        if name not in BY_NAME:
            near = difflib.get_close_matches(name, BY_NAME, 1, 0.6)
            hint = f"; did you mean {near[0]}?" if near else f": {', '.join(BY_NAME)}"
            raise NoSuchStage(f"there is no stage {name!r}{hint}")
    return tuple(stage for stage in STAGES if not names or stage.name in names)
