"""Repair and feedback in command records: what is agreed is written, and nothing by default."""

from __future__ import annotations

import pytest

from forwarder import table
from forwarder.commands import LegSet, RouteSet, SourceSet
from forwarder.dataplane.abi import ffi, lib
from forwarder.dataplane.encode import decode_event, encode
from forwarder.dataplane.events import EstimateReceived
from forwarder.table import Ext, Leg, Route, Source, Suite

KEYS = {"rx_key": bytes(16), "rx_salt": bytes(14), "tx_key": bytes(16), "tx_salt": bytes(14)}


def test_leg_flags() -> None:
    plain = Leg(1, 0, 7, Suite.AEAD_AES_128_GCM, **KEYS)
    assert encode(LegSet(plain), 1).u.leg_set.flags == 0
    agreed = Leg(
        1,
        0,
        7,
        Suite.AEAD_AES_128_GCM,
        **KEYS,
        nack=True,
        feedback=True,
        rx_ext=table.extensions({Ext.TRANSPORT_CC: 3}),
    )
    flags = encode(LegSet(agreed), 1).u.leg_set.flags
    assert flags == lib.VC_LEG_NACK | lib.VC_LEG_FEEDBACK
    assert plain.digest != agreed.digest
    with pytest.raises(ValueError, match="TRANSPORT_CC"):
        Leg(1, 0, 7, Suite.AEAD_AES_128_GCM, **KEYS, feedback=True)


def test_rtx_streams() -> None:
    source = encode(SourceSet(Source(2, 1, ssrc=5, rtx_ssrc=6, rtx_pt=97)), 1).u.source_set
    assert (source.rtx_ssrc, source.rtx_pt) == (6, 97)
    source = encode(SourceSet(Source(2, 1, ssrc=5)), 1).u.source_set
    assert (source.rtx_ssrc, source.rtx_pt) == (0, 0)
    repaired = Route(3, 1, 2, 0, 9, rtx_ssrc=10, rtx_pt=98, rtx_seq_start=77)
    route = encode(RouteSet(repaired), 1).u.route_set
    assert (route.rtx_ssrc, route.rtx_pt, route.rtx_seq_start) == (10, 98, 77)
    with pytest.raises(ValueError, match="go together"):
        Route(3, 1, 2, 0, 9, rtx_ssrc=10)
    with pytest.raises(ValueError, match="rtx_seq_start"):
        Route(3, 1, 2, 0, 9, rtx_ssrc=10, rtx_pt=98, rtx_seq_start=1 << 15)
    with pytest.raises(ValueError, match="rtx_ssrc"):
        Source(2, 1, ssrc=5, rtx_ssrc=6)


def test_estimate() -> None:
    record = ffi.new("struct vc_event *")
    record.type = lib.VC_EVT_ESTIMATE
    record.u.estimate.leg, record.u.estimate.bitrate_bps = 4, 700_000
    assert decode_event(record) == EstimateReceived(4, 700_000)


def test_red() -> None:
    source = encode(SourceSet(Source(2, 1, ssrc=5, pt=111, red_pt=63)), 1).u.source_set
    assert (source.pt, source.red_pt) == (111, 63)
    assert encode(RouteSet(Route(3, 1, 2, 0, 9, pt=111, red_pt=45)), 1).u.route_set.red_pt == 45
    assert encode(RouteSet(Route(3, 1, 2, 0, 9, pt=111)), 1).u.route_set.red_pt == 0
    with pytest.raises(ValueError, match="red_pt"):
        Source(2, 1, ssrc=5, pt=111, red_pt=111)
    with pytest.raises(ValueError, match="red_pt"):
        Route(3, 1, 2, 0, 9, red_pt=128)
