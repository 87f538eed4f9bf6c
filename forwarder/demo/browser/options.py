"""What the browser lab is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# Debian's.
BINARIES = {"chromium": Path("/usr/bin/chromium"), "firefox": Path("/usr/bin/firefox-esr")}
FPS = 15
WIDTH, HEIGHT = 320, 180
CODECS = ("vp8", "vp9", "h264", "av1")
KINDS = tuple(BINARIES)
JOINS = ("session", "whip")
PATHS = ("xdp", "udp")


@dataclass(frozen=True)
class BrowserOptions:
    """`fps` is not on the command line: half of it is what a slow machine gets on the retry."""

    participants: int = 2
    path: str = "xdp"
    codec: str = "vp8"
    browsers: tuple[str, ...] = ("chromium",)  # kinds, in the order of participants, and again
    loss: float = 0.0  # of all datagrams between browsers and node, both ways; 0 to 1
    join: str = "session"
    repair: bool = True  # NACK and RTX are offered
    ipv6: bool = False
    seconds: float = 10.0
    fps: int = FPS
    pcap: Path | None = None
    out: Path = Path("demo-out")
