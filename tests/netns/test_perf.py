"""The performance rig runs: the generator, the receiver, the data plane and a baseline, for real.

Nothing here says how fast anything is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("forwarder.dataplane._bpf", reason="_bpf is not built")
from perf.bench import vcfwd
from perf.bench.bottleneck import measure
from perf.bench.lab import Lab
from perf.bench.relay import BareXdpGcm, Case, Relay
from perf.bench.rtpengine import Rtpengine
from perf.bench.trials import Trials

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.root
TRIALS = 20  # of which one has to pass, on a machine that does other things too


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    subprocess.run(["make", "-s", "-C", ROOT / "perf", "all"], check=True)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(mark="t") as made:
        yield made
    left = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert made.prefix not in left
    assert not made.folder.exists()


def measured(relay: Relay, sample_every: int = 3) -> dict:
    """A stream of 900 packets, every departure stamped and many of them opened."""
    times = relay.lab.folder / "times"
    options = {"times": times, "sample_every": sample_every, "keys": relay.key_file()}
    with relay.receiver(**options) as receiver:
        generator = relay.generate(rate=300, seconds=3, times=times)
        while not times.exists() or times.stat().st_size < 64:
            assert generator.poll() is None
            time.sleep(0.01)
        time.sleep(0.2)
        receiver.ask("measure")
        sent = relay.finish(generator)
        total = receiver.settled()
        answer = receiver.ask("finish")
    assert total == sent["sent"] * relay.case.copies
    return answer


@pytest.mark.parametrize("kind", [vcfwd.Xsk, vcfwd.SocketsUnpaced])
@pytest.mark.parametrize("suite", ["gcm", "sha1"])
def test_vcfwd(lab: Lab, kind: type[vcfwd.Vcfwd], suite: str) -> None:
    relay = kind(lab, Case(3, 600, suite))
    relay.start()
    try:
        relay.offered(300)
        answer = measured(relay)
    finally:
        counters = relay.stop()
    assert answer["verified"] > 0
    assert answer["not_authentic"] == answer["wrong_payload"] == answer["lost_stamps"] == 0
    seen = answer["measured"]
    assert seen["streams"] == 3 and seen["records"] > 0
    assert seen["lost"] == seen["duplicates"] == seen["unmatched"] == 0
    assert counters["rx_xsk" if kind is vcfwd.Xsk else "rx_socket"] == counters["rx"] > 0


def test_a_baseline_and_a_search(lab: Lab) -> None:
    relay = BareXdpGcm(lab, Case(2, 600))
    relay.start()
    try:
        with relay.receiver() as receiver:
            trials = Trials(relay, receiver)
            # A source that was kept from its processor for 4 ms makes a trial void, not a rate.
            assert any(trials.offer(500, 0.2)[0] for _ in range(TRIALS))
    finally:
        ended = relay.stop()
    assert ended["out"] == 2 * ended["in"] > 0


def test_rtpengine_opens_and_seals(lab: Lab) -> None:
    if shutil.which("rtpengine") is None:
        pytest.skip("rtpengine is missing: `make perf-deps` installs it")
    relay = Rtpengine(lab, Case(2, 600, publishers=2))
    relay.start()
    try:
        answer = measured(relay)
    finally:
        relay.stop()
    assert answer["verified"] > 0 and answer["not_authentic"] == answer["wrong_payload"] == 0


def test_the_bottleneck_takes_what_is_not_paced(lab: Lab) -> None:
    found = measure(lab, 0.5)
    assert found["unpaced"]["lost"] > 0
    assert found["paced"]["sent"] == found["unpaced"]["sent"]
    assert not any(str(os.getpid()) in name and name.endswith("-far") for name in
                   subprocess.run(["ip", "netns"], capture_output=True, text=True,
                                  check=True).stdout.split())  # fmt: skip
