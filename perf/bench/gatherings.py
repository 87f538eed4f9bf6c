"""Two loads that a node must carry on one worker without loss, and the share of the core they take.

fan1000   one 2.5 Mb/s stream to 1,000 receivers, paced as shipped
active50  50 members, each with sound and 300 kb/s video, each receiving the other 49
"""

from __future__ import annotations

import time
from typing import Any

from perf.bench import meter as meters
from perf.bench import vcfwd
from perf.bench.lab import SOURCE_PORT, Lab, Receiver, say
from perf.bench.relay import Case
from perf.bench.table import SSRC, Meeting

START_RATE = 20_000_000
"""`pacing.start_rate` of configs/default.toml, bits a second."""
HD: dict[str, Any] = {"frames": 30, "per_frame": 10, "key_every": 60, "key_packets": 60}
"""2.5 Mb/s: 30 frames a second of 10 packets of HD_SIZE, a key frame of 60 every 2 s."""
HD_SIZE = 1040
VIDEO: dict[str, Any] = {"frames": 30, "per_frame": 1, "size": 1200}
"""288 kb/s."""
AUDIO: dict[str, Any] = {"frames": 50, "per_frame": 1, "size": 160, "payload_type": 111}


def record(
    name: str, sent: int, due: int, got: int, cost: meters.Cost, counters: dict[str, int]
) -> dict[str, Any]:
    say(f"  {name}: {due - got} of {due} lost, {cost.relay:.1%} of the relay's core")
    return {
        "sent": sent,
        "due": due,
        "lost": due - got,
        "core_share": round(cost.relay, 4),
        "dropped_before": counters["xsk_rx_dropped"],
        "dropped_within": due - counters["transmitted"],
    }


def fan1000(lab: Lab, meter: meters.Meter, seconds: float, copies: int = 1000) -> dict[str, Any]:
    relay = vcfwd.Xsk(lab, Case(copies, HD_SIZE))
    relay.start()
    try:
        relay.set_rate(START_RATE)
        with relay.receiver() as receiver:
            before = receiver.packets()
            generator = relay.generate(seconds=seconds, **HD)
            time.sleep(0.3)
            cost = meter.measure(seconds - 1)
            sent = relay.finish(generator)
            got = receiver.settled() - before
    finally:
        counters = relay.stop()
    return record("fan1000", sent["sent"], sent["sent"] * copies, got, cost, counters)


def active50(lab: Lab, meter: meters.Meter, seconds: float, members: int = 50) -> dict[str, Any]:
    relay = vcfwd.Xsk(lab, Case(members - 1, 1200, publishers=members), members=members)
    relay.start()
    try:
        relay.set_rate(START_RATE)
        with Receiver(lab, members, place="pub", base=SOURCE_PORT) as receiver:
            before = receiver.packets()
            common: dict[str, Any] = {"seconds": seconds, "reuse_port": True}
            video = relay.generate(**common, **VIDEO)
            audio = relay.generate(**common, **AUDIO, ssrc=SSRC + Meeting.AUDIO_SSRC)
            time.sleep(0.3)
            cost = meter.measure(seconds - 1)
            sent = relay.finish(video)["sent"] + relay.finish(audio)["sent"]
            got = receiver.settled() - before
    finally:
        counters = relay.stop()
    return record("active50", sent, sent * (members - 1), got, cost, counters)
