"""A Debian with both packages: commands, units, a node of its own user, upgrade, purge."""

from __future__ import annotations

import json
import re

import pytest
from deb_kit import Installed, Packages, as_unit

SERVICES = ("vcfwd-dataplane", "vcfwd-supervisor", "vcfwd-tune", "vcfwd-tune-watch")
EXPOSURE_MAX = {
    "vcfwd-dataplane": 40, "vcfwd-supervisor": 40, "vcfwd-tune": 50, "vcfwd-tune-watch": 50,
    "vcfwd-pins": 70,
}  # fmt: skip
"""Tenths of `systemd-analyze security`'s exposure, 0 to 10.0: what tunes writes to /sys and /proc
as root, and what mounts the pins may have no mount namespace of its own."""
PROPERTIES = {
    "vcfwd-tune": ("Type=oneshot", "Before=vcfwd-dataplane.service"),
    "vcfwd-tune-watch": ("ExecStart=/usr/bin/vcfwd tune watch",),
    "vcfwd-dataplane": (
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_XDP AF_NETLINK",
        "LimitMEMLOCK=infinity", "RuntimeDirectoryPreserve=yes", "Slice=vcfwd.slice",
        "Delegate=cpuset", "AppArmorProfile=-vcfwd-dataplane",
    ),
    "vcfwd-supervisor": (
        "Wants=vcfwd-dataplane.service vcfwd-pins.service network-online.target",
        "RuntimeDirectoryPreserve=yes",
    ),
}  # fmt: skip
DATAPLANE = as_unit("vcfwd-dataplane", "/usr/lib/vcfwd/vcfwd-dataplane --run-dir /run/vcfwd")
SUPERVISOR = as_unit("vcfwd-supervisor", "/usr/bin/vcfwd up --service")
UNTIL_READY = """
n=0; until vcfwd status --json > /tmp/status 2>/tmp/why; do
  n=$((n + 1))
  [ $n -lt 100 ] || { cat /tmp/why /tmp/supervisor /tmp/dataplane >&2; exit 9; }
  sleep 0.1
done
"""


def test_version(installed: Installed, packages: Packages) -> None:
    release = installed.told(". /etc/os-release; echo $VERSION_CODENAME")
    assert release.strip() == packages.suite.name
    version = packages.field("Version").removesuffix(packages.suite.suffix)
    assert installed.told("vcfwd --version").strip() == f"vcfwd {version}"
    told = installed.told("/usr/lib/vcfwd/vcfwd-dataplane --version; cat /usr/lib/vcfwd/contract")
    lines = told.splitlines()
    assert lines[0] == f"version {version}" and lines[1] == f"contract {lines[2]}"
    assert f'NEW="{lines[2]}"' in packages.script("preinst")


def test_tune_check_doctor_and_help(installed: Installed) -> None:
    done = installed.run("vcfwd tune check --json")
    assert done.returncode in (0, 1, 2), done.stderr
    assert json.loads(done.stdout)
    assert "udp" in installed.told("vcfwd doctor")
    commands = installed.told("vcfwd --help")
    assert "drain" in commands and "demo" not in commands
    plan = json.loads(installed.told("vcfwd tune plan --json"))
    assert plan["workers"]


def test_accounts_and_modes(installed: Installed) -> None:
    told = installed.told(
        "stat -c '%n %U:%G %a' /etc/vcfwd/vcfwd.toml /var/lib/vcfwd; getent passwd vcfwd;"
        "systemd-tmpfiles --create vcfwd.conf; stat -c '%n %U:%G %a' /run/vcfwd"
    ).splitlines()
    assert told[0] == "/etc/vcfwd/vcfwd.toml root:vcfwd 640"
    assert told[1] == "/var/lib/vcfwd vcfwd:vcfwd 700"
    assert told[2].endswith("/nologin") and int(told[2].split(":")[2]) < 1000
    assert told[3] == "/run/vcfwd vcfwd:vcfwd 700"


def test_the_key_is_the_nodes_own(installed: Installed) -> None:
    secret = installed.told("sed -n 's/.*secret = \"\\(.*\\)\".*/\\1/p' /etc/vcfwd/vcfwd.toml")
    assert re.fullmatch(r"[0-9a-f]{64}\n", secret)
    other = installed.told(
        "rm /etc/vcfwd/vcfwd.toml; /var/lib/dpkg/info/vcfwd.postinst configure '' >&2;"
        "sed -n 's/.*secret = \"\\(.*\\)\".*/\\1/p' /etc/vcfwd/vcfwd.toml"
    )
    assert re.fullmatch(r"[0-9a-f]{64}\n", other) and other != secret
    kept = installed.told("/var/lib/dpkg/info/vcfwd.postinst configure 0 >&2; cat /etc/vcfwd/*")
    assert secret.strip() in kept


def test_somebody_who_may_not_read_the_configuration_is_told(installed: Installed) -> None:
    done = installed.run("setpriv --reuid=nobody --clear-groups vcfwd doctor")
    assert done.returncode == 0 and "may not be read by this user" in done.stderr


def test_units_are_sound(installed: Installed) -> None:
    units = " ".join(f"/usr/lib/systemd/system/{name}.service" for name in SERVICES)
    done = installed.run(
        f"systemd-analyze verify --man=no {units} /usr/lib/systemd/system/vcfwd.slice"
    )
    assert done.returncode == 0 and "vcfwd" not in done.stderr, done.stderr


@pytest.mark.parametrize("name", sorted(EXPOSURE_MAX))
def test_units_are_sandboxed(installed: Installed, name: str) -> None:
    unit = f"/usr/lib/systemd/system/{name}.service"
    limit = f"--offline=true --threshold={EXPOSURE_MAX[name]}"
    done = installed.run(f"systemd-analyze security --no-pager {limit} {unit}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


@pytest.mark.parametrize("name", sorted(PROPERTIES))
def test_units_have_their_properties(installed: Installed, name: str) -> None:
    lines = installed.told(f"cat /usr/lib/systemd/system/{name}.service").splitlines()
    assert set(PROPERTIES[name]) <= set(lines)
    for word in ("BindsTo=", "PartOf=", *(["MemoryDenyWriteExecute="] * ("super" in name))):
        assert not [line for line in lines if line.startswith(word)]


def test_needrestart_leaves_the_data_plane_alone(installed: Installed) -> None:
    """Its file of ours, read as needrestart does; the supervisor may be restarted."""
    program = """
        our %nrconf; defined do "/etc/needrestart/conf.d/vcfwd.conf" or die $@;
        for my $unit ("vcfwd-dataplane.service", "vcfwd-supervisor.service") {
            my @rules = grep { $unit =~ $_ } keys %{$nrconf{override_rc}};
            print "$unit ", (@rules ? $nrconf{override_rc}{$rules[0]} : "none"), "\\n";
        }
    """
    words = f"cat > /tmp/rules.pl <<'END'\n{program}\nEND\nperl -w /tmp/rules.pl"
    # Keys of a hash are texts: needrestart matches them as patterns all the same.
    assert installed.told(words).splitlines() == [
        "vcfwd-dataplane.service 0", "vcfwd-supervisor.service none",
    ]  # fmt: skip


def test_what_is_enabled(installed: Installed) -> None:
    """What changes the host is the operator's to enable."""
    links = installed.told("cd /etc/systemd/system; find . -name 'vcfwd*' | sort").split()
    assert links == [
        f"./multi-user.target.wants/{name}.service"
        for name in ("vcfwd-dataplane", "vcfwd-supervisor")
    ]


def test_a_node_runs_as_its_own_user_and_is_drained(installed: Installed) -> None:
    """With the user, the capabilities and the limits of the units, on native XDP."""
    told = installed.told(
        f"""
        ip link add vd0 type veth peer name vd1
        ip addr add 192.0.2.1/24 dev vd0; ip link set vd0 up; ip link set vd1 up
        cat >> /etc/vcfwd/vcfwd.toml <<'END'
        [network]
        addresses = ["192.0.2.1"]
        interfaces = ["vd0"]
        path = "xdp-native"
END
        systemd-tmpfiles --create vcfwd.conf
        /usr/lib/vcfwd/mount-pins /run/vcfwd/bpf vcfwd
        {DATAPLANE} > /tmp/dataplane 2>&1 &
        dataplane=$!
        {SUPERVISOR} > /tmp/supervisor 2>&1 &
        supervisor=$!
        {UNTIL_READY}
        cat /tmp/status
        echo ======
        ps -o user= -p $dataplane,$supervisor
        vcfwd room create r
        ls /run/vcfwd/bpf | grep -c link_
        kill -TERM $supervisor; wait $supervisor; echo $?
        echo ======
        {SUPERVISOR} > /tmp/supervisor 2>&1 &
        supervisor=$!
        {UNTIL_READY}
        vcfwd room list --json
        echo ======
        vcfwd drain 2> /tmp/why
        wait $supervisor; echo $?
        wait $dataplane; echo $?
        ls /run/vcfwd/bpf | grep -v debug || true
        """
    )
    status, first, rooms, end = told.split("======\n")
    assert json.loads(status)["path"] == "xdp-native"
    assert first.split() == ["vcfwd", "vcfwd", "r", "1", "0"]
    assert [room["id"] for room in json.loads(rooms)] == ["r"]
    assert end.splitlines() == ["the node has stopped", "0", "0"]


def test_an_upgrade_that_does_not_fit_is_refused_before_anything_changes(
    installed: Installed,
) -> None:
    preinst = "sh /var/lib/dpkg/info/vcfwd.preinst upgrade 0.0.9"
    start = f"""
        systemd-tmpfiles --create vcfwd.conf
        {DATAPLANE} > /tmp/dataplane 2>&1 &
        n=0; until [ -e /run/vcfwd/dataplane.version ]; do
          n=$((n + 1)); [ $n -lt 100 ] || exit 9; sleep 0.05; done
    """
    other = "sed -i 's/^contract .*/contract abi0-0-steer0/' /run/vcfwd/dataplane.version"
    assert installed.run(f"{start} {preinst}").returncode == 0
    refused = installed.run(f"{start} {other}; {preinst}")
    assert refused.returncode == 1
    assert "abi0-0-steer0" in refused.stderr and "vcfwd drain --deadline" in refused.stderr
    forced = installed.run(f"{start} {other}; VCFWD_UPGRADE=force {preinst}")
    assert forced.returncode == 0
    idle = "mkdir -p /run/vcfwd; echo contract x > /run/vcfwd/dataplane.version"
    assert installed.run(f"{idle}; touch /run/vcfwd/dataplane.lock; {preinst}").returncode == 0


def test_an_upgrade_keeps_the_configuration(installed: Installed, packages: Packages) -> None:
    before, _, after = installed.told(
        f"cat /etc/vcfwd/vcfwd.toml; echo ======; dpkg -i /root/{packages.own.name} >&2;"
        "cat /etc/vcfwd/vcfwd.toml"
    ).partition("======\n")
    assert before == after


def test_a_removal_takes_the_tuning_back(installed: Installed) -> None:
    """Settings that outlive a boot, made by the command; not only files that purge knows."""
    told = installed.told(
        """
        mkdir -p /etc/default/grub.d
        echo mine > /etc/default/grub.d/60-vcfwd.cfg
        vcfwd tune apply boot memlock >&2
        grep -c isolcpus /etc/default/grub.d/60-vcfwd.cfg
        ls /etc/security/limits.d/60-vcfwd.conf
        dpkg --remove vcfwd >&2
        cat /etc/default/grub.d/60-vcfwd.cfg
        ls /etc/security/limits.d/60-vcfwd.conf 2>/dev/null || echo gone
        """
    ).splitlines()
    assert told == ["1", "/etc/security/limits.d/60-vcfwd.conf", "mine", "gone"]


def test_removal_and_purge(installed: Installed) -> None:
    """Pins, slice and settings go; the tuning's own files too."""
    told = installed.told(
        """
        systemd-tmpfiles --create vcfwd.conf
        /usr/lib/vcfwd/mount-pins /run/vcfwd/bpf vcfwd
        mkdir -p /run/vcfwd/bpf/a /etc/systemd/system/vcfwd-dataplane.service.d /etc/default/grub.d
        touch /etc/systemd/system/vcfwd-dataplane.service.d/60-vcfwd-slice.conf
        touch /etc/systemd/system/vcfwd.slice /etc/default/grub.d/60-vcfwd.cfg
        mkdir -p /var/lib/vcfwd/tune
        dpkg --remove vcfwd >&2
        ls -d /etc/vcfwd /var/lib/vcfwd; ! mountpoint -q /run/vcfwd/bpf
        dpkg --purge vcfwd vcfwd-runtime >&2
        find / -xdev -name '*vcfwd*' ! -path '/proc/*' ! -path '/root/*' ! -path '/tmp/*' \\
          ! -path '/var/lib/dpkg/*' ! -path '/var/log/*' ! -path '/var/cache/*'
        """
    ).split()
    assert told == ["/etc/vcfwd", "/var/lib/vcfwd"]


def test_apparmor_takes_the_profile(installed: Installed) -> None:
    """Compiled by the parser of the release, not loaded; enforced on the lab node."""
    profile = "/etc/apparmor.d/usr.lib.vcfwd.vcfwd-dataplane"
    done = installed.run(f"apparmor_parser --skip-kernel-load --skip-cache --debug {profile}")
    assert done.returncode == 0, done.stderr
