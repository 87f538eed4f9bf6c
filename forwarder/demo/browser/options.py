"""What the browser lab is asked to do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

# Debian's.
BINARIES = {"chromium": Path("/usr/bin/chromium"), "firefox": Path("/usr/bin/firefox-esr")}
FPS = 15
WIDTH, HEIGHT = 320, 180
LARGE_WIDTH, LARGE_HEIGHT = 640, 360  # of a simulcast publisher, and of random pixels
LOW_BPS, HIGH_BPS = 150_000, 1_500_000  # most of the two layers
CODECS = ("vp8", "vp9", "h264", "av1")
KINDS = tuple(BINARIES)
JOINS = ("session", "whip")
PATHS = ("xdp", "udp")
LOSS_MAX = 0.9
SECONDS = 10.0  # of media, unless it is asked for more
FEW = 3  # browsers that two cores serve with ease
BOUND_S, BOUND_MANY_S = (
    120.0,
    240.0,
)  # of a run in all, with both attempts; of one with more browsers


@dataclass(frozen=True)
class BrowserOptions:
    """`fps` is not on the command line: half of it is what a slow machine gets on the retry."""

    participants: int = 2
    path: str = "xdp"
    codec: str = "vp8"
    browsers: tuple[str, ...] = ("chromium",)  # kinds, in the order of participants, and again
    loss: float = 0.0  # of all datagrams between browsers and node, both ways; 0 to 1
    join: str = "session"
    simulcast_by: int = 0  # this participant sends two layers of a larger picture
    first_alone: bool = False  # the first browser has its host for itself
    noise: bool = False  # random pixels, so that the encoder takes what it may
    max_bitrate: int | None = None  # bits a second of one layer; None: the browser's own
    repair: bool = True  # NACK and RTX are offered
    feedback: bool = True  # transport-wide numbers and their feedback are offered
    ipv6: bool = False
    dual: bool = False  # IPv6 besides IPv4, at the node and at the browsers
    seconds: float = SECONDS
    fps: int = FPS
    pcap: Path | None = None
    out: Path = Path("demo-out")

    @property
    def bound_s(self) -> float:
        """So long a run may take in all: both attempts, and what they clean up."""
        bound_s = BOUND_S if self.participants <= FEW else BOUND_MANY_S
        return bound_s + 2 * max(0.0, self.seconds - SECONDS)

    def large(self, number: int) -> bool:
        """Whether this participant's picture is a large one."""
        return self.noise or number == self.simulcast_by

    def encodings(self, number: int) -> list[dict[str, object]] | None:
        """RTCRtpEncodingParameters of this participant's picture; None: the browser's own."""
        if number == self.simulcast_by:
            # Without a mode Chromium makes layers of one stream (SVC) of these encodings.
            mode = {"scalabilityMode": "L1T2"} if self.codec in ("vp9", "av1") else {}
            low = {"rid": "l", "scaleResolutionDownBy": 2, "maxBitrate": LOW_BPS, **mode}
            return [low, {"rid": "h", "maxBitrate": HIGH_BPS, **mode}]
        return None if self.max_bitrate is None else [{"maxBitrate": self.max_bitrate}]


def share(text: str) -> float:
    """Of "5%" or of "0.05", 0 to LOSS_MAX.  ValueError tells what is wrong: a 5 is neither."""
    try:
        found = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        found = math.nan
    if not 0 <= found <= LOSS_MAX:
        raise ValueError(f"5 % is written 5% or 0.05, and {LOSS_MAX:.0%} is the most")
    return found
