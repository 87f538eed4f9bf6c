"""The shell line of a step does what the step does: run by a shell, on copies of the hosts."""

from __future__ import annotations

import re
import subprocess

import pytest
from host_kit import CLOUD, EPYC, NAMES, Tuned, copied

from forwarder.host import stages, verdicts
from forwarder.host.describe import steps
from forwarder.host.stage import State

# What a capture has no kernel and no systemd for.  $root is the copy.
PROGRAMS = r"""
set -eu
sysctl() {
    name=${2%%=*}
    printf '%s\n' "${2#*=}" > "$root/proc/sys/$(printf %s "$name" | tr . /)"
}
systemctl() {
    case "$*" in
    daemon-reload) ;;
    'start vcfwd.slice') mkdir -p "$root/sys/fs/cgroup/vcfwd.slice" ;;
    *) exit 7 ;;
    esac
}
update-grub() { [ -e "$root/etc/default/grub.d/60-vcfwd.cfg" ]; }
"""
OURS = re.compile(r"(?<= )(?=/(?:sys|proc|etc)/)")


def by_hand(root, lines: list[str]) -> None:
    """The lines, one shell each as an operator would, with the copy's paths."""
    for line in lines:
        text = f"{PROGRAMS}\n{OURS.sub(str(root), line)}\n"
        done = subprocess.run(
            ["bash", "-c", text], env={"PATH": "/usr/bin:/bin", "root": str(root)},
            capture_output=True, text=True, check=False, timeout=20,
        )  # fmt: skip
        assert done.returncode == 0 and not done.stderr, f"{line}\n{done.stderr}"


@pytest.mark.parametrize("name", NAMES)
def test_the_lines_by_hand_are_the_apply(name, tmp_path):
    """But for ethtool's, which need a NIC: tests/netns/test_tune.py, and the lab node."""
    (tmp_path / "hand").mkdir()
    (tmp_path / "ours").mkdir()
    hand, ours = copied(name, tmp_path / "hand"), copied(name, tmp_path / "ours")
    todo = [step for step in steps(Tuned(hand).survey()) if not step.met]
    lines = [step.shell for step in todo if not step.shell.startswith("ethtool ")]
    assert len(lines) > 5
    by_hand(hand, lines)
    chosen = {step.stage for step in todo if not step.shell.startswith("ethtool ")}
    chosen -= {step.stage for step in todo if step.shell.startswith("ethtool ")}
    Tuned(ours).apply(*sorted(chosen))

    def found(root) -> dict[str, tuple[str, str]]:
        site = Tuned(root).survey().site
        return {v.stage: (v.state, v.sentence) for v in verdicts.check(site, stages.select(chosen))}

    assert found(hand) == found(ours)
    rest = {stage for stage, (state, _) in found(hand).items() if state is not State.OK}
    rest -= {stage for stage, (state, _) in found(hand).items() if state is State.CONFLICT}
    assert rest == {"boot"}, "until the restart"


def test_a_line_that_is_met_may_be_run_again(tmp_path):
    root = copied(CLOUD, tmp_path)
    Tuned(root).apply("sysctls", "thp", "hugepages", "memlock", "boot", "xps")
    again = [s.shell for s in steps(Tuned(root).survey()) if s.met and s.shell[:7] != "ethtool"]
    assert len(again) > 8
    by_hand(root, again)
    assert Tuned(root).apply("sysctls", "thp", "hugepages", "memlock", "boot", "xps").changed == 0


def test_ethtools_lines_are_words_that_it_knows(tmp_path):
    """`ethtool -L X combined 3`: flag, interface, then pairs."""
    lines = {s.shell for s in steps(Tuned(copied(EPYC, tmp_path)).survey("ens3", "eno1"))}
    for line in (line for line in lines if line.startswith("ethtool")):
        assert re.fullmatch(
            r"ethtool (-L \w+ combined \d+|-G \w+ (rx|tx) \d+"
            r"|-C \w+ (rx-usecs \d+|adaptive-[rt]x off)"
            r"|-K \w+ [\w-]+ o(n|ff)|-X \w+ equal \d+|-N \w+ rx-flow-hash udp[46] sdfn"
            r"|-N \w+ flow-type udp4 dst-port \d+ action \d+)",
            line,
        ), line
