"""C (gcc and clang), BPF and Python agree on every size and offset of the contract.

A probe prints what each compiler makes of the headers; Python's side is the cffi module for
c_helpers/include/vcfwd/abi.h and forwarder.dataplane.steering_abi for ebpf/abi.h.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from forwarder import table
from forwarder.dataplane import abi, lateness, steering_abi
from forwarder.dataplane.abi import ffi, lib
from forwarder.dataplane.control import FdKind
from forwarder.dataplane.counters import SOURCE_ROW
from forwarder.dataplane.setup import Crypto, Scheduler
from forwarder.dataplane.tally import LegStats, RouteStats, SourceMeter, SourceStats

ROOT = Path(__file__).resolve().parents[2]
INCLUDES = ["-I", str(ROOT / "c_helpers" / "include"), "-I", str(ROOT / "c_helpers" / "src")]


def structs() -> list[str]:
    """Every struct of abi.h that cffi knows."""
    return sorted(name for name in ffi.list_types()[1] if name.startswith("vc_"))


def members(kind, prefix: str = "") -> list[tuple[str, int, int]]:
    """(path, offset, size) of every member, unions and nested structs included."""
    found = []
    for name, field in kind.fields or []:
        path = f"{prefix}{name}"
        found.append((path, field.offset, ffi.sizeof(field.type)))
        if field.type.kind in ("struct", "union"):
            found += [(p, field.offset + o, s) for p, o, s in members(field.type, f"{path}.")]
    return found


def run_probe(compiler: str, body: str, includes: str, tmp_path: Path) -> list[str]:
    source = tmp_path / "probe.c"
    source.write_text(f"{includes}\n#include <stdio.h>\n#include <stddef.h>\n"
                      f"int main(void) {{\n{body}\nreturn 0; }}\n")  # fmt: skip
    program = tmp_path / f"probe-{compiler}"
    subprocess.run([compiler, "-std=c11", *INCLUDES, "-o", program, source], check=True)
    return subprocess.run([program], capture_output=True, text=True, check=True).stdout.split("\n")


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_c_and_python_agree_on_the_contract(compiler: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    names = structs()
    assert {"vc_command", "vc_event", "vc_shm_header", "vc_ctl_setup"} <= set(names)
    lines, expected = [], []
    for name in names:
        kind = ffi.typeof(f"struct {name}")
        lines.append(f'printf("{name} %zu\\n", sizeof(struct {name}));')
        expected.append(f"{name} {ffi.sizeof(kind)}")
        for path, offset, size in members(kind):
            at = f"((struct {name} *)0)->{path}"
            lines.append(f'printf("{name}.{path} %zu %zu\\n", (size_t)(char *)&{at}, sizeof {at});')
            expected.append(f"{name}.{path} {offset} {size}")
    assert len(expected) > 150
    got = run_probe(compiler, "\n".join(lines), '#include "vcfwd/abi.h"', tmp_path)
    assert [line for line in got if line] == expected


def test_layout_hash_agrees(tmp_path: Path) -> None:
    (line, *_) = run_probe(
        "gcc",
        'printf("%llu\\n", (unsigned long long)vc_layout_hash());',
        '#include "vcfwd/abi.h"',
        tmp_path,
    )
    assert int(line) == lib.vc_user_layout_hash()


def test_enums_and_limits_agree(tmp_path: Path) -> None:
    """Numbers that Python writes down by itself."""
    wanted: dict[str, int] = {
        "VC_LEG_TUPLES": table.LEG_TUPLES_MAX,
        "VC_LABEL_SZ": table.LABEL_MAX,
        "VC_EXT_COUNT": len(table.Ext),
        "VC_QUEUE_COUNT": len(table.Queue),
        "VC_SRTP_NONE": table.Suite.NONE,
        "VC_SRTP_AES_CM_128_HMAC_SHA1_80": table.Suite.AES_CM_128_HMAC_SHA1_80,
        "VC_SRTP_AEAD_AES_128_GCM": table.Suite.AEAD_AES_128_GCM,
        "VC_STATUS_COUNT": len(abi.STATUSES),
        "VC_DROP_COUNT": len(abi.DROPS),
        "VC_COPY_DROP_COUNT": len(abi.COPY_DROPS),
        "sizeof(struct vc_counters) / 8": len(abi.COUNTERS)
        + len(abi.DROPS)
        + len(abi.COPY_DROPS)
        + len(lateness.BOUNDS_US)
        + 1,
    }
    for prefix, enum in (
        ("VC_EXT_", table.Ext),
        ("VC_QUEUE_", table.Queue),
        ("VC_CODEC_", table.Codec),
        ("VC_FD_", FdKind),
        ("VC_CRYPTO_", Crypto),
        ("VC_SCHEDULER_", Scheduler),
    ):
        wanted |= {f"{prefix}{item.name}": int(item) for item in enum}
    lines = [f'printf("%ld\\n", (long)({name}));' for name in wanted]
    includes = '#include "vcfwd/abi.h"\n#include "crypto.h"'
    got = run_probe("gcc", "\n".join(lines), includes, tmp_path)
    assert dict(zip(wanted, map(int, filter(None, got)), strict=True)) == wanted


def test_statistics_read_existing_fields() -> None:
    for kind, name in ((LegStats, "leg"), (SourceStats, "source"), (RouteStats, "route")):
        fields = {f for f, _ in ffi.typeof(f"struct vc_{name}_stats").fields}
        assert set(kind.__dataclass_fields__) <= fields


def test_meters_read_the_same_fields() -> None:
    record = ffi.new("struct vc_source_stats *")
    wanted = SourceMeter(1 << 40, 2 << 40, 3 << 40, 99, 4 << 40)
    for name, value in wanted._asdict().items():
        setattr(record, name, value)
    for name in ("keyframes", "ssrc", "highest_seq", "lost", "jitter", "plis"):
        setattr(record, name, 0x5A5A)
    assert ffi.sizeof("struct vc_source_stats") == SOURCE_ROW.size
    assert SourceMeter._make(SOURCE_ROW.unpack(ffi.buffer(record))) == wanted


STEERING = {
    "sizeof(struct vc_flow_key)": steering_abi.FLOW_KEY.size,
    "offsetof(struct vc_flow_key, local_ip)": 16,
    "offsetof(struct vc_flow_key, remote_port_be)": 32,
    "offsetof(struct vc_flow_key, local_port_be)": 34,
    "sizeof(struct vc_bucket)": steering_abi.BUCKET_BYTES,
    "sizeof(struct vc_flow)": steering_abi.FLOW_BYTES,
    "offsetof(struct vc_flow, bytes_per_s)": 8,
    "offsetof(struct vc_flow, packets_per_s)": 16,
    "offsetof(struct vc_flow, media)": steering_abi.FLOW_HEAD.size,
    "sizeof(struct vc_guard)": steering_abi.GUARD_BYTES,
    "sizeof(struct vc_listen_key)": steering_abi.LISTEN_KEY.size,
    "offsetof(struct vc_listen_key, local_port_be)": 16,
    "sizeof(struct vc_steer_meta)": steering_abi.META.size,
    "sizeof(struct vc_prefix_key)": 20,
    "VC_STEER_ABI_VERSION": steering_abi.ABI_VERSION,
    "VC_FLOWS_MAX": steering_abi.FLOWS_MAX,
    "VC_LISTEN_MAX": steering_abi.LISTEN_MAX,
    "VC_PORTS_MAX": steering_abi.PORTS_MAX,
    "VC_XSKS_MAX": steering_abi.XSKS_MAX,
    "VC_GROUP_MAX": steering_abi.GROUP_MAX,
}


@pytest.mark.parametrize("target", ["bpf", "host"])
def test_steering_agrees(target: str, tmp_path: Path) -> None:
    """The BPF compiler's numbers lie in a section of an object that nobody loads."""
    if shutil.which("clang") is None or shutil.which("llvm-objcopy") is None:
        pytest.skip("there is no clang with llvm-objcopy")
    items = ",".join(f"(unsigned long long)({name})" for name in STEERING)
    source = tmp_path / "probe.c"
    source.write_text(
        f'#include "{ROOT}/ebpf/abi.h"\n'
        "#define offsetof(type, member) __builtin_offsetof(type, member)\n"
        '__attribute__((section("probe"), used))\n'
        f"const unsigned long long numbers[] = {{{items}}};\n"
    )
    triple = ["-target", "bpf", "-mcpu=v3"] if target == "bpf" else []
    include = f"/usr/include/{subprocess.check_output(['gcc', '-dumpmachine'], text=True).strip()}"
    subprocess.run(
        ["clang", *triple, "-I", include, "-O2", "-g", "-c", source, "-o", tmp_path / "probe.o"],
        check=True,
    )
    subprocess.run(
        ["llvm-objcopy", "-O", "binary", "--only-section=probe", "probe.o", "numbers"],
        cwd=tmp_path,
        check=True,
    )
    raw = (tmp_path / "numbers").read_bytes()
    got = struct.unpack(f"={len(STEERING)}Q", raw)
    assert dict(zip(STEERING, got, strict=True)) == STEERING


def test_a_tuple_is_the_same_on_both_sides() -> None:
    """struct vc_tuple (data plane) and struct vc_flow_key (steering) have one layout."""
    kind = ffi.typeof("struct vc_tuple")
    assert ffi.sizeof(kind) == steering_abi.FLOW_KEY.size
    order = [name for name, _ in sorted(kind.fields, key=lambda item: item[1].offset)]
    assert order == ["remote_ip", "local_ip", "remote_port_be", "local_port_be"]
