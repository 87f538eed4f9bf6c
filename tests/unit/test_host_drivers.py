"""The table of drivers: all twelve, every column, quoted by plan and doctor, and the only list of
whose zero-copy is allowed.
"""

from __future__ import annotations

import re
import tomllib

import pytest
from host_kit import FIXTURES, NAMES, Tuned

from forwarder.dataplane import bpf
from forwarder.dataplane.steering_probe import ACT_BASIC, ACT_REDIRECT, ACT_ZEROCOPY, judge
from forwarder.dataplane.steering_probe import Facts as Seen
from forwarder.host.drivers import load
from forwarder.host.facts import Nic
from forwarder.net.drivers import FILE, since, why_no_zerocopy

TABLE = tomllib.loads(FILE.read_text())
KERNEL = (7, 3)
ZEROCOPY_ALLOWED = {"i40e", "igb"}


def nic(driver: str) -> Nic:
    return Nic("eth9", "physical", driver, 0, True, 1500, 4, 8, "", (), (), {})


def test_the_twelve_drivers():
    assert sorted(TABLE) == [
        "bnxt_en", "ena", "gve", "hv_netvsc", "i40e", "ice", "igb", "igc", "ixgbe", "mlx5_core",
        "veth", "virtio_net",
    ]  # fmt: skip


@pytest.mark.parametrize("driver", TABLE)
def test_a_row_has_every_column(driver):
    row = TABLE[driver]
    assert set(row) == {
        "native", "zerocopy", "trusted", "why_not", "ntuple", "resets", "outage", "mtu",
        "channels", "source",
    }  # fmt: skip
    assert re.fullmatch(r"\d+\.\d+", row["native"])
    for version in (row["zerocopy"], row["trusted"]):
        assert re.fullmatch(r"(\d+\.\d+)?", version)
    assert bool(row["trusted"]) != bool(row["why_not"]), "trusted, or a reason"
    assert isinstance(row["ntuple"], bool)
    assert set(row["resets"]) <= {"channels", "rings", "xdp", "features", "ntuple"}
    assert row["outage"] and row["source"]
    assert 1500 <= row["mtu"] <= 9000
    assert row["channels"] in ("combined", "rx-tx", "fixed")


@pytest.mark.parametrize("driver", TABLE)
def test_the_quote_has_every_column(driver):
    row = TABLE[driver]
    told = load().quote(nic(driver), KERNEL)
    assert told.startswith(f"eth9: driver {driver}: native XDP, MTU at most {row['mtu']}; ")
    assert ("; rules for ports;" if row["ntuple"] else "; no rules for ports;") in told
    assert f"; channels {row['channels']};" in told
    assert f"{', '.join(row['resets']) or 'nothing'} resets the link" in told
    assert told.endswith(f"source: {row['source']}")
    if driver in ZEROCOPY_ALLOWED:
        assert "; zero-copy is allowed;" in told
    else:
        assert row["why_not"] in told
    old = load().quote(nic(driver), (3, 0))
    assert f"no native XDP before {row['native']}" in old and "is allowed" not in old


@pytest.mark.parametrize("name", NAMES)
def test_the_plan_quotes_it(name):
    survey = Tuned(FIXTURES / name).survey()
    release = survey.site.facts.release
    for each in survey.site.nics:
        assert load().quote(each, release) in survey.notes


@pytest.mark.parametrize("driver", [*TABLE, "r8169", ""])
@pytest.mark.parametrize("kernel", [(5, 10), (5, 19), (6, 1), (6, 14), KERNEL])
def test_the_data_path_asks_the_same_table(driver, kernel):
    """A NIC that could do it all: only the table stands between it and zero-copy."""
    able = ACT_BASIC | ACT_REDIRECT | ACT_ZEROCOPY
    seen = Seen("eth9", driver, 1, 1500, able, kernel, (), bpf.XdpState(0, "none", ""), False)
    zero = judge(seen)[0]
    trusted = TABLE.get(driver, {}).get("trusted", "")
    assert zero.name == "xdp-zerocopy"
    assert zero.usable == since(trusted, kernel) == (not why_no_zerocopy(driver, kernel))
    if driver in ("ice", "mlx5_core"):
        assert not zero.usable and "2026" in zero.why


def test_who_is_on_the_list():
    assert {d for d in TABLE if not why_no_zerocopy(d, KERNEL)} == ZEROCOPY_ALLOWED


def test_a_driver_that_nobody_knows_gets_the_careful_answers():
    row = load().of("newnic")
    assert not row.trusted and not row.ntuple
    assert {"channels", "rings", "xdp"} <= set(row.resets)
    assert load().quote(nic("newnic"), KERNEL) == "eth9: driver newnic is not in vcfwd's table"
