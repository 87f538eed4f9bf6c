"""The units under a real systemd, in their sandboxes: what dies, what comes back, what stays."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from deb_kit import Installed, Packages
from systemd_kit import Ran, under_systemd

BEGIN = """
for unit in supervisor dataplane; do
  folder=/etc/systemd/system/vcfwd-$unit.service.d; mkdir -p $folder
  log=append:/share/$unit.log
  printf '[Service]\\nStandardOutput=%s\\nStandardError=%s\\n' $log $log > $folder/log.conf
done
systemctl daemon-reload
ip link add vd0 type veth peer name vd1
ip addr add 192.0.2.1/24 dev vd0; ip link set vd0 up; ip link set vd1 up
cat >> /etc/vcfwd/vcfwd.toml <<'END'
[network]
addresses = ["192.0.2.1"]
interfaces = ["vd0"]
path = "xdp-native"
END
until_ready() {
  n=0
  until vcfwd status --json > /tmp/status 2> /tmp/why; do
    n=$((n + 1)); [ $n -lt 100 ] || { cat /tmp/why >&2; exit 9; }
    sleep 0.1
  done
  grep -q '"path": "xdp-native"' /tmp/status || exit 5
}
main() { systemctl show -p MainPID --value vcfwd-$1; }
until_other() {
  n=0
  until [ "$(main $1)" != "$2" ] && [ "$(main $1)" != 0 ]; do
    n=$((n + 1)); [ $n -lt 100 ] || exit 8
    sleep 0.1
  done
}
same() { [ $(main dataplane) = $plane ] && echo same; }
links() { ls /run/vcfwd/bpf | grep -c link_; }
systemctl start vcfwd-supervisor
until_ready
plane=$(main dataplane); supervisor=$(main supervisor)
"""


@pytest.fixture
def share(tmp_path: Path) -> Path:
    made = tmp_path / "share"
    made.mkdir()
    return made


def well(ran: Ran, share: Path) -> dict[str, str]:
    """The lines `NAME WORDS` that the script told; it must have come to its end."""
    logs = [f"--- {path.name}\n{path.read_text()[-3000:]}" for path in sorted(share.glob("*.log"))]
    why = "\n".join([ran.out, ran.err[-2000:], ran.console[-3000:], *logs])
    assert ran.status.strip() == "0", why
    return dict(line.split(" ", 1) for line in ran.out.splitlines() if " " in line)


def test_each_may_die_without_the_other(installed: Installed, share: Path) -> None:
    script = f"""{BEGIN}
        vcfwd room create r > /dev/null
        systemctl restart vcfwd-supervisor; until_ready
        echo restarted $(same) $(links)
        echo rooms $(vcfwd room list --json | grep -c '"id": "r"')
        supervisor=$(main supervisor)
        kill -9 $supervisor; until_other supervisor $supervisor; until_ready
        echo killed $(same) $(links)
        kill -9 $plane; until_other dataplane $plane; sleep 1; until_ready
        echo replaced $(links) $(grep -c '"restarts": 1' /tmp/status)
        echo cgroup $(sed 's/^0:://' /proc/$(main dataplane)/cgroup | tail -1)
        echo users $(ps -o user= -p $(main dataplane),$(main supervisor))
        status=/proc/$(main supervisor)/status
        echo privileges $(sed -n 's/^NoNewPrivs:\\s*//p; s/^Seccomp:\\s*//p' $status)
        systemctl stop vcfwd-supervisor
        echo stopped $(systemctl is-active vcfwd-dataplane vcfwd-supervisor || true)
    """
    told = well(under_systemd(installed, script, share), share)
    assert told["restarted"] == told["killed"] == "same 1"
    assert told["rooms"] == "1"
    assert told["replaced"] == "1 1"
    assert told["cgroup"] == "/vcfwd.slice/vcfwd-dataplane.service"
    assert told["users"] == "vcfwd vcfwd"
    assert told["privileges"] == "1 2"
    assert told["stopped"] == "active inactive"


def test_a_drained_node_stays_down_until_it_is_started(installed: Installed, share: Path) -> None:
    script = f"""{BEGIN}
        vcfwd drain > /tmp/drained 2>&1
        n=0; until ! systemctl is-active -q vcfwd-supervisor; do
          n=$((n + 1)); [ $n -lt 50 ] || exit 7; sleep 0.1; done
        sleep 1
        echo drained $(systemctl is-active vcfwd-dataplane vcfwd-supervisor || true)
        echo pins $(links || true)
        systemctl start vcfwd-supervisor; until_ready
        echo again $(systemctl is-active vcfwd-dataplane vcfwd-supervisor)
    """
    told = well(under_systemd(installed, script, share), share)
    assert told["drained"] == "inactive inactive"
    assert told["pins"] == "0"
    assert told["again"] == "active active"


def another_version(package: Path, folder: Path, mark: bytes) -> Path:
    """The package with another first digit in its version everywhere: what a release would be."""
    subprocess.run(["dpkg-deb", "--raw-extract", package, folder / "x"], check=True)
    old = re.search(r"^Version: (\S+?)~deb", (folder / "x/DEBIAN/control").read_text(), re.M)
    assert old is not None
    plain = old[1].encode()
    for path in (folder / "x").rglob("*"):
        if path.is_file() and not path.is_symlink() and plain in (raw := path.read_bytes()):
            path.write_bytes(raw.replace(plain, mark + plain[1:]))
    shutil.rmtree(folder / "x/DEBIAN/md5sums", ignore_errors=True)
    made = folder / "other.deb"
    subprocess.run(["dpkg-deb", "-Zgzip", "--build", folder / "x", made], check=True)
    return made


def test_an_upgrade_leaves_the_data_plane_alone(
    installed: Installed, packages: Packages, share: Path, tmp_path: Path
) -> None:
    another_version(packages.own, tmp_path, b"9").rename(share / "other.deb")
    script = f"""{BEGIN}
        began() {{ cut -d' ' -f22 /proc/$plane/stat; }}
        before=$(began)
        dpkg -i /share/other.deb > /share/dpkg 2>&1
        until_other supervisor $supervisor; until_ready
        echo plane $([ $(began) = $before ] && same)
        echo version $(vcfwd --version)
        echo links $(links)
    """
    told = well(under_systemd(installed, script, share), share)
    version = packages.field("Version").partition("~")[0]
    later = f"9{version[1:]}"
    assert told["plane"] == "same"
    assert told["version"] == f"vcfwd {later}"
    assert told["links"] == "1"
    said = f"the data plane goes on as it is: running {version}, installed {later}"
    assert said in (share / "supervisor.log").read_text()


def test_an_upgrade_of_another_contract_changes_nothing(
    installed: Installed, packages: Packages, share: Path
) -> None:
    script = f"""{BEGIN}
        sed -i 's/^contract .*/contract abi0-0-steer0/' /run/vcfwd/dataplane.version
        dpkg -i /root/{packages.own.name} > /share/dpkg 2>&1 && exit 6
        echo left $([ $(main supervisor) = $supervisor ] && same)
        echo state $(dpkg-query -W -f '${{Status}}' vcfwd)
    """
    told = well(under_systemd(installed, script, share), share)
    assert told["left"] == "same" and told["state"] == "install ok installed"
    assert "vcfwd drain --deadline" in (share / "dpkg").read_text()


def test_an_upgrade_may_be_forced_and_gives_the_calls_up(
    installed: Installed, packages: Packages, share: Path
) -> None:
    script = f"""{BEGIN}
        sed -i 's/^contract .*/contract abi0-0-steer0/' /run/vcfwd/dataplane.version
        VCFWD_UPGRADE=force dpkg -i /root/{packages.own.name} > /share/dpkg 2>&1
        until_other dataplane $plane; until_other supervisor $supervisor; until_ready
        echo contract $(sed -n 's/^contract //p' /run/vcfwd/dataplane.version) $(links)
    """
    told = well(under_systemd(installed, script, share), share)
    real = re.search(r'NEW="(.*)"', packages.script("preinst"))
    assert real is not None and told["contract"] == f"{real[1]} 1"


def test_purge_while_it_runs(installed: Installed, share: Path) -> None:
    script = f"""{BEGIN}
        echo before $(ip link show vd0 | grep -c prog/xdp)
        dpkg --purge vcfwd > /share/dpkg 2>&1
        echo after $(ip link show vd0 | grep -c prog/xdp || true)
        echo units $(systemctl is-active vcfwd-dataplane vcfwd-supervisor vcfwd.slice || true)
        echo left $(ls -d /run/vcfwd /etc/vcfwd /var/lib/vcfwd 2>/dev/null || true)
    """
    told = well(under_systemd(installed, script, share), share)
    assert (told["before"], told["after"]) == ("1", "0")
    assert told["units"] == "inactive inactive inactive"
    assert told.get("left", "").strip() == ""
