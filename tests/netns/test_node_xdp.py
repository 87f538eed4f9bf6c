"""What a node does to the interfaces it was given, and to no other: programs come, stay, go."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from nets import entered, ip
from node_kit import Site, Up, up

from forwarder.demo.namespaces import Lab

pytest.importorskip("forwarder.dataplane._bpf", reason="_bpf is not built")
from forwarder.dataplane import bpf

pytestmark = pytest.mark.root

FOREIGN = """
    #include <linux/bpf.h>
    #include <bpf/bpf_helpers.h>
    SEC("xdp") int somebody_else(struct xdp_md *ctx) { return XDP_PASS; }
    char _license[] SEC("license") = "GPL";
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(prefix="vctxdp") as made:
        yield made


@pytest.fixture
def site(lab: Lab, tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "node", lab.fwd, lab.fwd_addresses, lab.interfaces, 4433)
    yield made
    made.clean_up()


def programs(lab: Lab) -> dict[str, tuple[int, str]]:
    """Interface of the forwarder -> id and mode of the XDP program on it (0: none)."""
    with entered(lab.fwd.name):
        found = {}
        for index, name in socket.if_nameindex():
            state = bpf.xdp_read(index)
            found[name] = (state.prog_id, state.mode if state.prog_id else "")
        return found


@contextmanager
def foreign(lab: Lab, link: str, folder: Path) -> Iterator[int]:
    """Somebody else's program on an interface; its id."""
    source, built = folder / "foreign.bpf.c", folder / "foreign.bpf.o"
    source.write_text(FOREIGN)
    arch = f"-I/usr/include/{os.uname().machine}-linux-gnu"
    subprocess.run(
        ["clang-14", "-O2", "-g", "-target", "bpf", arch, "-c", source, "-o", built], check=True
    )
    with bpf.BpfObject(built) as item:
        item.load()
        with entered(lab.fwd.name):
            held = bpf.link_xdp(item.prog_fd, socket.if_nametoindex(link), generic=False)
        try:
            yield programs(lab)[link][0]
        finally:
            os.close(held)


def up_fails(site: Site) -> str:
    """A start that must fail: its words."""
    node = Up(site)
    try:
        assert node.process.wait(30) == 1
        assert node.out.read_text() == "" and "Traceback" not in node.words()
        return node.words()
    finally:
        node.clean_up()


def nothing_of_ours(site: Site) -> None:
    left = {path.name for path in site.pins.iterdir()} if site.pins.exists() else set()
    assert left <= {"maps.debug", "progs.debug"}
    assert site.dataplanes() == []


def test_attached_where_configured_and_detached_after_a_clean_stop(lab: Lab, site: Site) -> None:
    assert set(programs(lab).values()) == {(0, "")}
    with up(site) as node:
        on = programs(lab)
        assert on["lo"] == (0, "")
        assert on["in0"][0] and on["in0"] == on["out0"] and on["in0"][1] == "native"
        assert site.status()["path"] == "xdp-native"
        assert node.end() == 0
    assert set(programs(lab).values()) == {(0, "")}
    nothing_of_ours(site)


def test_a_killed_supervisor_leaves_the_program_and_the_next_adopts_it(
    lab: Lab, site: Site
) -> None:
    with up(site) as first:
        before, pids = programs(lab), site.dataplanes()
        first.kill()
        assert programs(lab) == before and before["in0"][0]
        with up(site) as second:
            assert programs(lab) == before, "kept, without a gap"
            assert site.dataplanes() == pids and site.status()["dataplane"]["adopted"]
            assert second.end() == 0
    assert set(programs(lab).values()) == {(0, "")}
    nothing_of_ours(site)


def test_both_processes_are_killed_and_the_next_start_takes_the_interfaces(
    lab: Lab, site: Site
) -> None:
    with up(site) as first:
        before = programs(lab)
        first.kill()
        for pid in site.dataplanes():
            os.kill(pid, 9)
        assert programs(lab) == before
        with up(site) as second:
            status = site.status()
            assert not status["dataplane"]["adopted"] and status["path"] == "xdp-native"
            assert second.end() == 0
    assert set(programs(lab).values()) == {(0, "")}


@pytest.mark.parametrize(("link", "path"), [("in0", "auto"), ("out0", "xdp")])
def test_a_foreign_program_is_named_and_left_alone(
    lab: Lab, tmp_path: Path, link: str, path: str
) -> None:
    site = Site(
        tmp_path / "node", lab.fwd, lab.fwd_addresses, lab.interfaces, 4433,
        {"network": {"path": path}},
    )  # fmt: skip
    with foreign(lab, link, tmp_path) as theirs:
        words = up_fails(site)
        assert link in words and "somebody_else" in words, words
        assert "vcfwd doctor" in words or "ip link" in words or "end its owner" in words, words
        on = programs(lab)
        assert on[link][0] == theirs
        assert {name: state for name, state in on.items() if name != link} == {
            name: (0, "") for name in on if name != link
        }
        nothing_of_ours(site)
    with up(site) as node:  # it is gone: now we can
        assert node.end() == 0
    site.clean_up()


def test_a_failed_start_takes_its_program_away_again(lab: Lab, site: Site) -> None:
    made = Up(site, env={"VCFWD_DATAPLANE": "/bin/false"})
    assert made.process.wait(30) == 1
    assert "data plane" in made.words()
    assert set(programs(lab).values()) == {(0, "")}
    nothing_of_ours(site)


def test_an_interface_that_is_no_longer_configured_is_given_back(
    lab: Lab, site: Site, tmp_path: Path
) -> None:
    with up(site) as first:
        first.kill()
        text = site.config_file.read_text().replace('["in0", "out0"]', '["out0"]')
        site.config_file.write_text(text)
        with up(site) as second:
            on = programs(lab)
            assert on["in0"] == (0, "") and on["out0"][0]
            assert not site.status()["dataplane"]["adopted"], "another set-up"
            assert second.end() == 0
    assert set(programs(lab).values()) == {(0, "")}


# ---- doctor ---------------------------------------------------------------------------------


def doctor(site: Site, *arguments: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "forwarder.cli.app", "doctor", "--json", *arguments]
    done = subprocess.run(
        site.host.command(*command), capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


def everything(lab: Lab) -> str:
    """The links, with what is attached to them."""
    return ip("-d", "link", netns=lab.fwd.name)


def usable(found: dict[str, Any], name: str) -> dict[str, bool]:
    (entry,) = [item for item in found["interfaces"] if item["name"] == name]
    assert [path["name"] for path in entry["paths"]] == [
        "xdp-zerocopy", "xdp-native", "xdp-generic", "udp",
    ]  # fmt: skip
    assert all(set(path) == {"name", "usable", "why"} and path["why"] for path in entry["paths"])
    return {path["name"]: path["usable"] for path in entry["paths"]}


def test_doctor_tells_and_touches_nothing(lab: Lab, site: Site) -> None:
    before = everything(lab)
    status, found = doctor(site)
    assert status == 0 and found["chosen"] == "udp"
    assert {item["name"] for item in found["interfaces"]} >= {"lo", "in0", "out0"}
    assert usable(found, "in0") == {
        "xdp-zerocopy": False, "xdp-native": True, "xdp-generic": True, "udp": True,
    }  # fmt: skip
    assert usable(found, "lo")["xdp-native"] is False
    told = {item["name"]: item["driver"] for item in found["interfaces"]}
    assert told["lo"] == ""
    for words in ("in0: driver veth: native XDP", "EOPNOTSUPP", "channels rx-tx", "source: "):
        assert words in told["in0"], "the row of host/drivers.toml"
    status, found = doctor(site, "--config", str(site.config_file))
    assert (status, found["chosen"]) == (0, "xdp-native")
    assert everything(lab) == before
    assert set(programs(lab).values()) == {(0, "")}
    assert not site.run_dir.exists()


def test_doctor_beside_a_node_knows_its_program(lab: Lab, site: Site) -> None:
    with up(site) as node:
        before = programs(lab)
        status, found = doctor(site, "--config", str(site.config_file))
        assert (status, found["chosen"]) == (0, "xdp-native")
        assert usable(found, "out0")["xdp-native"]
        assert programs(lab) == before
        assert node.end() == 0


def test_doctor_says_what_stands_in_the_way(lab: Lab, tmp_path: Path) -> None:
    site = Site(
        tmp_path / "node", lab.fwd, lab.fwd_addresses, lab.interfaces, 4433,
        {"network": {"path": "xdp"}},
    )  # fmt: skip
    with foreign(lab, "out0", tmp_path) as theirs:
        status, found = doctor(site, "--config", str(site.config_file))
        assert status == 1 and found["chosen"] == "none", "`vcfwd up` would refuse"
        assert usable(found, "out0") == {
            "xdp-zerocopy": False, "xdp-native": False, "xdp-generic": False, "udp": True,
        }  # fmt: skip
        assert "somebody_else" in json.dumps(found)
        assert programs(lab)["out0"][0] == theirs
