"""SRTP of the client: both suites both ways, and what does not verify."""

from __future__ import annotations

import base64

import pytest

from forwarder.client import rtcp, rtp
from forwarder.client.srtp import Srtp
from forwarder.rtp.suites import Suite
from forwarder.signaling.messages import MediaOffer


def offers(suite: Suite) -> tuple[MediaOffer, MediaOffer]:
    """The two ends of one leg."""
    size = suite.key_size + suite.salt_size
    one, other = (base64.b64encode(bytes([n]) * size).decode() for n in (1, 2))
    common = {
        "addresses": [("127.0.0.1", 4433)],
        "ufrag": "u",
        "password": "p",
        "suite": suite,
        "rtcp_ssrc": 1,
        "cname": "c",
    }
    return (
        MediaOffer(send_key=one, receive_key=other, **common),
        MediaOffer(send_key=other, receive_key=one, **common),
    )


def packet(seq: int) -> bytes:
    return rtp.build(pt=96, seq=seq, timestamp=0, ssrc=5, payload=b"payload", marker=False)


@pytest.mark.parametrize("suite", list(Suite))
def test_both_directions_across_the_wrap(suite: Suite) -> None:
    here, there = (Srtp(offer) for offer in offers(suite))
    for seq in [*range(65530, 65536), *range(6)]:
        assert there.open_rtp(here.seal_rtp(packet(seq))) == packet(seq)
        assert here.open_rtp(there.seal_rtp(packet(seq))) == packet(seq)
    compound = rtcp.receiver_report(1, []) + rtcp.picture_loss(1, 2)
    assert there.open_rtcp(here.seal_rtcp(compound)) == compound
    assert not here.failures
    assert not there.failures


@pytest.mark.parametrize("suite", list(Suite))
def test_forged_replayed_and_truncated_packets_are_counted(suite: Suite) -> None:
    here, there = (Srtp(offer) for offer in offers(suite))
    sealed = here.seal_rtp(packet(1))
    assert there.open_rtp(sealed[:-1] + bytes([sealed[-1] ^ 1])) is None
    assert there.open_rtp(sealed) == packet(1)
    assert there.open_rtp(sealed) is None
    assert there.failures == {"authentication failure": 1, "replay check failed (bad index)": 1}
    for size in range(len(sealed)):
        assert there.open_rtp(sealed[:size]) is None
        assert there.open_rtcp(sealed[:size]) is None


def test_a_key_of_the_wrong_size_is_refused_with_its_size() -> None:
    offer = offers(Suite.GCM)[0].model_copy(update={"send_key": base64.b64encode(b"x").decode()})
    with pytest.raises(ValueError, match="1 bytes of key"):
        Srtp(offer)
