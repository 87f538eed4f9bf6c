"""What a sampler hands over: one stack of one thread at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Sample:
    """`kernel` and `user` run from the root to the leaf; the kernel's part is above the user's.

    at_ns: CLOCK_MONOTONIC.  weight: 1 for a sample of work, microseconds for a wait.
    complete: the user part goes down to the thread's first function.
    """

    at_ns: int
    pid: int
    tid: int
    comm: str
    kernel: tuple[str, ...]
    user: tuple[str, ...]
    weight: int = 1
    complete: bool = True

    def with_user(self, user: tuple[str, ...], *, complete: bool = True) -> Sample:
        """The same with another user part."""
        return replace(self, user=user, complete=complete)


@dataclass(frozen=True)
class Recording:
    """What came of a run: `lost` samples were dropped on the way to user space."""

    backend: str
    hz: int
    samples: list[Sample]
    lost: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Order:
    """What to sample.  pids: name -> process id of those whose user stacks are wanted.
    kernel: also the kernel's stacks under every other process."""

    pids: Mapping[str, int] = field(default_factory=dict)
    kernel: bool = False
    seconds: float = 10.0
    hz: int = 499
    off_cpu: bool = False
