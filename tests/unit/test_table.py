"""Forwarding table values: digests, secrets, limits."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from forwarder.table import Ext, Leg, Queue, Route, Source, Suite, Tuple5, extensions

LEG = Leg(
    id=1,
    worker=0,
    key_id=7,
    suite=Suite.AEAD_AES_128_GCM,
    rx_key=b"r" * 16,
    rx_salt=b"s" * 12,
    tx_key=b"t" * 16,
    tx_salt=b"u" * 12,
    tuples=(Tuple5("192.0.2.1", 4000, "192.0.2.2", 4433),),
    nominated=0,
)
SOURCE = Source(id=2, leg=1, ssrc=0x1234)
ROUTE = Route(id=3, leg=1, source=2, source_worker=0, out_ssrc=99)

CHANGES = [
    (LEG, {"worker": 1}),
    (LEG, {"key_id": 8}),
    (LEG, {"suite": Suite.AES_CM_128_HMAC_SHA1_80}),
    (LEG, {"tuples": (Tuple5("192.0.2.1", 4001, "192.0.2.2", 4433),)}),
    (LEG, {"nominated": None}),
    (LEG, {"rate_bps": 1}),
    (LEG, {"tx_ext": extensions({Ext.MID: 3})}),
    (LEG, {"cname": "x"}),
    (SOURCE, {"ssrc": 0x1235}),
    (SOURCE, {"mid": "0"}),
    (SOURCE, {"queue": Queue.AUDIO}),
    (ROUTE, {"source": 4}),
    (ROUTE, {"paused": True}),
]


@pytest.mark.parametrize(("value", "change"), CHANGES)
def test_digest_follows_each_field(value, change):
    assert dataclasses.replace(value, **change).digest != value.digest
    assert dataclasses.replace(value).digest == value.digest


def test_digest_and_repr_hide_keys():
    other = dataclasses.replace(LEG, rx_key=b"x" * 16)
    assert other.digest == LEG.digest
    for secret in ("rrrr", "ssss", "tttt", "uuuu"):
        assert secret not in repr(LEG)


def test_digest_is_the_same_in_another_process():
    code = "from forwarder.table import *;print(Source(id=2, leg=1, ssrc=0x1234).digest)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(out.stdout) == SOURCE.digest


def test_addresses_are_normalised():
    a = Tuple5("::ffff:192.0.2.1", 1, "2001:db8:0::1", 2)
    assert (a.remote_ip, a.local_ip) == ("192.0.2.1", "2001:db8::1")


@pytest.mark.parametrize(
    ("value", "change", "says"),
    [
        (LEG, {"rx_key": b"short"}, "rx_key"),
        (LEG, {"tx_salt": b"x" * 13}, "tx_salt"),
        (LEG, {"nominated": 1}, "nominated"),
        (LEG, {"key_id": 0}, "key_id"),
        (LEG, {"cname": "x" * 17}, "cname"),
        (LEG, {"tuples": LEG.tuples * 5}, "5-tuples"),
        (SOURCE, {"ssrc": None}, "SSRC"),
        (SOURCE, {"queue": Queue.REPAIR}, "audio or video"),
        (ROUTE, {"seq_start": 1 << 15}, "seq_start"),
    ],
)
def test_bad_values_are_refused(value, change, says):
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(value, **change)
