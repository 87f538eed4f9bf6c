"""What the browser lab is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CHROMIUM = Path("/usr/bin/chromium")  # Debian's
FPS = 15
WIDTH, HEIGHT = 320, 180
CODECS = ("vp8", "vp9", "h264", "av1")
PATHS = ("xdp", "udp")


@dataclass(frozen=True)
class BrowserOptions:
    """`fps` is not on the command line: half of it is what a slow machine gets on the retry."""

    participants: int = 2
    path: str = "xdp"
    codec: str = "vp8"
    ipv6: bool = False
    seconds: float = 10.0
    fps: int = FPS
    pcap: Path | None = None
    out: Path = Path("demo-out")
