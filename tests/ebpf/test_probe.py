"""What is said of an interface: facts in, three sentences out; sizes and limits of tables."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from forwarder.dataplane import bpf, steering_abi
from forwarder.dataplane.steering import Flow, SteeringError
from forwarder.dataplane.steering_abi import pack_flow_key, unpack_flow_key
from forwarder.dataplane.steering_probe import PATHS, Facts, gather, judge, probe
from forwarder.table import Tuple5

from .conftest import ROOT, Loader
from .test_steer import class_of

NONE = bpf.XdpState(0, "none", "")
GOOD = Facts(
    ifname="eth9",
    driver="i40e",
    hardware_type=1,
    mtu=1500,
    features=1 | 2 | 4 | 8,
    kernel=(6, 12),
    missing_capabilities=(),
    program=NONE,
    program_is_ours=False,
)

# What is different from GOOD -> (zero-copy, native, generic) and a word of the first refusal.
JUDGEMENTS = {
    "a good NIC": ({}, (True, True, True), ""),
    "no privilege": (
        {"missing_capabilities": ("CAP_NET_ADMIN",)},
        (False, False, False),
        "lacks CAP_NET_ADMIN",
    ),
    "an old kernel": ({"kernel": (5, 4)}, (False, False, False), "older than 5.10"),
    "a foreign program": (
        {"program": bpf.XdpState(42, "native", "theirs")},
        (False, False, False),
        "'theirs' (id 42)",
    ),
    "our own program": (
        {"program": bpf.XdpState(42, "native", "vc_steer"), "program_is_ours": True},
        (True, True, True),
        "",
    ),
    "a tunnel": ({"hardware_type": 65534}, (False, False, False), "not an Ethernet"),
    "loopback": ({"hardware_type": 772, "features": 0}, (False, False, True), "loopback"),
    "no native XDP": ({"features": 0}, (False, False, True), "has no native XDP"),
    "no redirect": ({"features": 1}, (False, False, True), "cannot redirect"),
    "jumbo frames": ({"mtu": 9000}, (False, False, True), "MTU 9000"),
    "veth": ({"driver": "veth", "features": 0x67}, (False, True, True), "always copied"),
    "ice": ({"driver": "ice"}, (False, True, True), "corrupted memory in 2026"),
    "mlx5": ({"driver": "mlx5_core"}, (False, True, True), "memory corruption in 2026"),
    "an unlisted driver": ({"driver": "newnic"}, (False, True, True), "not on the list"),
    "trusted, but later": (
        {"driver": "igb", "kernel": (6, 1)},
        (False, True, True),
        "from Linux 6.14",
    ),
    "a kernel that does not tell": ({"features": None}, (True, True, True), ""),
}


@pytest.mark.parametrize("case", JUDGEMENTS)
def test_judgement(case: str) -> None:
    changes, usable, word = JUDGEMENTS[case]
    paths = judge(replace(GOOD, **changes))  # type: ignore[arg-type]
    assert tuple(path.name for path in paths) == PATHS
    assert tuple(path.usable for path in paths) == usable
    refusals = [path.why for path in paths if not path.usable]
    assert word in (refusals[0] if refusals else "")
    assert all(path.why and "\n" not in path.why for path in paths)


def test_loopback_for_real() -> None:
    facts = gather("lo")
    assert facts.hardware_type == 772 and facts.mtu > 0
    assert facts.kernel > (0, 0)
    assert not probe("lo")[0].usable


def test_no_such_interface() -> None:
    with pytest.raises(SteeringError, match="nowhere: there is no such interface"):
        probe("nowhere")


def test_python_and_bpf_agree_on_sizes(load: Loader) -> None:
    shapes = {name: bpf.map_shape(fd) for name, fd in load().map_fds().items()}
    sizes = {name: (shape.key_bytes, shape.value_bytes) for name, shape in shapes.items()}
    assert sizes == {
        "flows": (steering_abi.FLOW_KEY.size, steering_abi.FLOW_BYTES),
        "admitted": (steering_abi.FLOW_KEY.size, steering_abi.GUARD_BYTES),
        "prefixes": (20, steering_abi.GUARD_BYTES),
        "listen": (steering_abi.LISTEN_KEY.size, 4),
        "port_base": (4, 4),
        "xsks": (4, 4),
        "verdicts": (4, 8),
        "meta": (4, steering_abi.META.size),
    }
    assert shapes["flows"].max_entries == steering_abi.FLOWS_MAX
    assert shapes["listen"].max_entries == steering_abi.LISTEN_MAX
    assert shapes["port_base"].max_entries == steering_abi.PORTS_MAX
    assert shapes["xsks"].max_entries == steering_abi.XSKS_MAX
    assert shapes["verdicts"].max_entries == len(bpf.verdict_labels())
    assert set(bpf.verdict_meanings()) == set(bpf.verdict_labels())


def test_offsets_in_a_flow(tmp_path: Path) -> None:
    """The head as the C compiler lays it out, not only its size."""
    text = """
    #include <stddef.h>
    #include <stdio.h>
    #include "abi.h"
    int main(void)
    {
        printf("%zu %zu %zu %zu %zu %zu", offsetof(struct vc_flow, worker),
               offsetof(struct vc_flow, bytes_per_s), offsetof(struct vc_flow, packets_per_s),
               offsetof(struct vc_flow, media), sizeof(struct vc_bucket),
               offsetof(struct vc_steer_meta, digest));
        return VC_STEER_ABI_VERSION - %d;
    }
    """.replace("%d", str(steering_abi.ABI_VERSION))
    out = run_c(text, "gcc", tmp_path / "abi_offsets")
    head = steering_abi.FLOW_HEAD.size
    assert [int(word) for word in out.split()] == [4, 8, 16, head, steering_abi.BUCKET_BYTES, 8]
    assert Flow.unpack(Flow(1, 2, 3, 4).pack_head()) == Flow(1, 2, 3, 4)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_verdict_h_compiles_in_user_space(compiler: str, tmp_path: Path) -> None:
    text = """
    #include <stdio.h>
    #include "verdict.h"
    int main(void)
    {
        static const char *const names[] = {"none", "stun", "dtls", "quic", "media"};
        for (int first = 0; first < 256; first++)
            printf("%s ", names[vc_classify((__u8)first)]);
        return vc_pass_of(VC_CLASS_DTLS) != VC_VERDICT_PASS_DTLS;
    }
    """
    out = run_c(text, compiler, tmp_path / "verdict")
    assert out.split() == [class_of(first) for first in range(256)]


def run_c(text: str, compiler: str, binary: Path) -> str:
    flags = ("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-I", str(ROOT / "ebpf"))
    command = (compiler, *flags, "-x", "c", "-", "-o", str(binary))
    subprocess.run(command, input=text, check=True, text=True)
    return subprocess.run((str(binary),), check=True, capture_output=True, text=True).stdout


def test_a_full_table_names_its_limit(load: Loader) -> None:
    steering = load()
    for port in range(steering_abi.LISTEN_MAX):
        steering.add_listen("192.0.2.1", 1 + port)
    with pytest.raises(SteeringError, match="'listen': the table holds 256"):
        steering.add_listen("192.0.2.1", 65535)
    steering.add_listen("192.0.2.1", 1)  # one that is there is no new one
    with pytest.raises(SteeringError, match="XSKMAP holds 1024"):
        steering.set_port_base(1, 1024)
    steering.set_port_base(1, 1023)
    assert steering.del_port_base(1) and not steering.del_port_base(1)


def test_five_tuples_pack_both_families() -> None:
    for key in (
        Tuple5("198.51.100.7", 1, "192.0.2.1", 65535),
        Tuple5("::1", 2, "fe80::1", 3),
    ):
        assert unpack_flow_key(pack_flow_key(key)) == key
    scoped = Tuple5("fe80::1%eth0", 1, "fe80::2", 2)
    assert unpack_flow_key(pack_flow_key(scoped)).remote_ip == "fe80::1"
    with pytest.raises(ValueError, match="does not appear to be"):
        pack_flow_key(Tuple5("nonsense", 1, "192.0.2.1", 2))
