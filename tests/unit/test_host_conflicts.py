"""Who else sets what we set: each by name, with the line that makes peace."""

from __future__ import annotations

import pytest
from host_kit import CLOUD, LAPTOP, VM, XEON, Tuned, copied

from forwarder.host import conflicts, stages, verdicts
from forwarder.host.stage import State

CONTAINER = "0123456789ab" + "c" * 52
NIC_STAGES = {"channels", "rings", "rss", "coalesce", "offloads"}

# who -> what is put into a host without rivals, the stages that fight, the line that makes peace
RIVALS = {
    "tuned (balanced)": (
        {"proc/900/comm": "tuned", "etc/tuned/active_profile": "balanced"},
        {"sysctls", "governor", "cstates", "thp", "workqueues", "isolation"},
        "systemctl disable --now tuned",
    ),
    "irqbalance": (
        {"proc/900/comm": "irqbalance", "etc/default/irqbalance": "#IRQBALANCE_BANNED_CPULIST="},
        {"irq"},
        "vcfwd tune apply irqbalance && systemctl restart irqbalance",
    ),
    "the link file 50-mine.link": (
        {"etc/systemd/network/50-mine.link": "[Link]\nCombinedChannels=4"},
        NIC_STAGES,
        "take those lines out of /etc/systemd/network/50-mine.link",
    ),
    "the link file 51-run.link": (
        {"run/systemd/network/51-run.link": "[Link]\nLargeReceiveOffload=yes"},
        NIC_STAGES,
        "take those lines out of /run/systemd/network/51-run.link",
    ),
    "NetworkManager (uplink.nmconnection)": (
        {
            "proc/900/comm": "NetworkManager",
            "etc/NetworkManager/system-connections/uplink.nmconnection": "[ethtool]\nring-rx=64",
        },
        NIC_STAGES,
        "take the [ethtool] section out of "
        "/etc/NetworkManager/system-connections/uplink.nmconnection",
    ),
    "the ifupdown hook fast": (
        {"etc/network/if-up.d/fast": "#!/bin/sh\nethtool -G $IFACE rx 512"},
        NIC_STAGES,
        "chmod -x /etc/network/if-up.d/fast",
    ),
    "ifupdown (interfaces)": (
        {"etc/network/interfaces": "iface eth0 inet dhcp\n  post-up ethtool -K eth0 lro on"},
        NIC_STAGES,
        "take `post-up ethtool -K eth0 lro on` out of /etc/network/interfaces",
    ),
    "ifupdown (interfaces.d/eth1)": (
        {"etc/network/interfaces.d/eth1": "iface eth1 inet dhcp\n  hardware-dma-ring-rx 64"},
        NIC_STAGES,
        "take `hardware-dma-ring-rx 64` out of /etc/network/interfaces.d/eth1",
    ),
    "cpupower": (
        {"etc/systemd/system/multi-user.target.wants/cpupower.service": ""},
        {"governor"},
        "systemctl disable --now cpupower",
    ),
    "power-profiles-daemon": (
        {"proc/900/comm": "power-profiles-"},
        {"governor"},
        "systemctl disable --now power-profiles-daemon",
    ),
    "kubelet's static CPU manager": (
        {
            "proc/900/comm": "kubelet",
            "var/lib/kubelet/cpu_manager_state": '{"policyName": "static"}',
        },
        {"isolation"},
        "start kubelet with --reserved-cpus=1",
    ),
    "docker's cpuset of 0123456789ab": (
        {
            "proc/900/comm": "dockerd",
            f"sys/fs/cgroup/system.slice/docker-{CONTAINER}.scope/cpuset.cpus": "0-1",
        },
        {"isolation"},
        "docker update --cpuset-cpus 0,2-3 0123456789ab",
    ),
}  # fmt: skip

# Those who are there and set nothing of ours.
PEACEFUL = {
    "a link file that names": {"etc/systemd/network/60-n.link": "[Link]\nName=lan\n# RxChannels=1"},
    "a NetworkManager without ethtool": {
        "proc/900/comm": "NetworkManager",
        "etc/NetworkManager/system-connections/a.nmconnection": "[connection]\nid=a",
    },
    "a connection without NetworkManager": {
        "etc/NetworkManager/system-connections/a.nmconnection": "[ethtool]\nring-rx=64",
    },
    "Debian's own hook": {"etc/network/if-up.d/ethtool": "ethtool -G $IFACE rx 512"},
    "a hook that only reads": {"etc/network/if-up.d/mail": "# ethtool -G\nsendmail -q"},
    "a kubelet that shares": {
        "proc/900/comm": "kubelet", "var/lib/kubelet/cpu_manager_state": '{"policyName":"none"}',
    },
    "a container elsewhere": {
        "proc/900/comm": "dockerd",
        f"sys/fs/cgroup/cpuset/docker/{CONTAINER}/cpuset.cpus": "2-3",
    },
    "an irqbalance that is told": {
        "proc/900/comm": "irqbalance", "etc/default/irqbalance": 'IRQBALANCE_BANNED_CPULIST="1"',
    },
}  # fmt: skip


def host_with(files: dict[str, str], folder) -> Tuned:
    root = copied(VM, folder)
    for name, text in files.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text + "\n")
    return Tuned(root)


@pytest.mark.parametrize("who", RIVALS)
def test_each_rival_by_name_with_the_line_that_makes_peace(who, tmp_path):
    files, fought, peace = RIVALS[who]
    tuned = host_with(files, tmp_path)
    found = conflicts.find(tuned.host, "1", "0,2-3")
    assert [(c.who, set(c.stages), c.peace) for c in found] == [(who, fought, peace)]


@pytest.mark.parametrize("what", PEACEFUL)
def test_who_sets_nothing_of_ours_is_no_rival(what, tmp_path):
    assert conflicts.find(host_with(PEACEFUL[what], tmp_path).host, "1") == []


def test_check_tells_it_at_each_stage_that_is_fought_for(tmp_path):
    files, fought, peace = RIVALS["tuned (balanced)"]
    tuned = host_with(files, tmp_path)
    for verdict in verdicts.check(tuned.survey("eth1").site, stages.STAGES):
        if verdict.stage in fought and verdict.state is not State.NOT_APPLICABLE:
            assert verdict.state is State.CONFLICT
            assert verdict.sentence.startswith(f"tuned (balanced) sets this as well: {peace}")
        else:
            assert verdict.state is not State.CONFLICT
    assert verdicts.status(verdicts.check(tuned.survey().site, [stages.BY_NAME["sysctls"]])) == 1


@pytest.mark.parametrize("where", ["sys/fs/cgroup/cpuset/docker/{}", "sys/fs/cgroup/system.slice"
                                   "/docker-{}.scope"])  # fmt: skip
def test_a_container_on_a_workers_core(where, tmp_path):
    place = f"{where.format(CONTAINER)}/cpuset.cpus"
    tuned = host_with({"proc/900/comm": "dockerd", place: "0-3"}, tmp_path)
    (conflict,) = conflicts.find(tuned.host, "1", "0")
    assert conflict.peace == "docker update --cpuset-cpus 0 0123456789ab"


@pytest.mark.parametrize("name", [CLOUD, VM])
def test_hosts_without_rivals(name, tmp_path):
    assert conflicts.find(Tuned(copied(name, tmp_path)).host, "1") == []


@pytest.mark.parametrize("name", [XEON, LAPTOP])
def test_peace_is_made_by_what_is_said(name, tmp_path):
    """irqbalance that was told, and a link file whose lines were taken out, fight no more."""
    root = copied(name, tmp_path)
    tuned = Tuned(root)
    survey = tuned.survey()
    before = verdicts.check(survey.site, stages.select(["irq", "rings"]))
    assert any(verdict.state is State.CONFLICT for verdict in before)
    if name == XEON:
        tuned.apply("irqbalance")
    else:
        (root / "etc/systemd/network/10-fast.link").write_text("[Match]\nDriver=r8169\n[Link]\n")
    after = verdicts.check(tuned.survey().site, stages.select(["irq", "rings"]))
    assert all(verdict.state is not State.CONFLICT for verdict in after)
