"""The disk of the lab node: Debian 13 with systemd, sshd and what vcfwd depends on.

Built once and kept under ${XDG_CACHE_HOME:-~/.cache}/vcfwd-lab/<hash>; the hash is over the recipe
below and the package that goes in, so that a clean clone finds it.  Older ones that nobody uses are
removed.  One build at a time (flock).  Needs root and the Debian archive that this host uses; its
address goes into no image.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tests.lab.deps import mirror

sys.path.append(str(Path(__file__).parents[2] / "configs" / "debian"))
import contents

SUITE = "trixie"
BUILD_ROOM = 7 << 30  # bytes free to build
CACHED_ROOM = 2 << 30  # bytes free to run
DISK = "4G"
BUILD_TIMEOUT_S = 1500
PACKAGES = (
    "systemd-sysv", "openssh-server", "iproute2", "ethtool", "python3", "python3-apt",
    "initramfs-tools", "linux-image-amd64", "udev", "dbus", "iputils-ping", "zstd", "apparmor",
    "irqbalance", "tcpdump", "kmod", "procps", "libpython3-stdlib", "python3-venv", "libcap2-bin",
    "needrestart",
)  # fmt: skip
MODULES = ("virtio_pci", "virtio_blk", "ext4")
"""Of the initrd: it starts in a second; with all of them in half a minute."""
MANAGEMENT_MAC = "52:54:00:00:00:10"
NIC_MACS = ("52:54:00:00:00:20", "52:54:00:00:00:21")
"""Of the node's interfaces.  networkd knows its own by address: a match by driver misses an
interface that udev renames in that moment, and the node is then reached by nobody."""


class LabUnavailable(Exception):
    """This machine cannot run the lab; the sentence says why."""


@dataclass(frozen=True)
class Image:
    """Files of a base image; nothing in them changes after the build.  `hold`: a lock that says
    that they are used, as long as this process has it open."""

    folder: Path
    hold: IO[str] | None = field(default=None, compare=False)

    @property
    def disk(self) -> Path:
        return self.folder / "base.qcow2"

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd.img"

    @property
    def key(self) -> Path:
        return self.folder / "id_ed25519"


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "vcfwd-lab"


@contextmanager
def locked() -> Iterator[Path]:
    """The cache folder, with this process alone in it."""
    folder = cache()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _digest(runtime: Path) -> str:
    recipe = (SUITE, DISK, PACKAGES, MODULES, MANAGEMENT_MAC, NIC_MACS, BEFORE, AFTER)
    made_of = hashlib.sha256(repr(recipe).encode())
    made_of.update(runtime.read_bytes())
    return made_of.hexdigest()[:16]


def room(folder: Path, needed: int) -> None:
    """LabUnavailable: the folder's file system has fewer bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise LabUnavailable(
            f"{folder} has {free >> 30} GB free, and the lab needs {needed >> 30}: make room there"
        )


def _hold(folder: Path, how: int) -> IO[str] | None:
    """The lock of a cached image; None: somebody else uses it."""
    lock = (folder / "used").open("w")
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    return lock


def _remove(folder: Path) -> None:
    lock = _hold(folder, fcntl.LOCK_EX)
    if lock is not None:
        with lock:
            shutil.rmtree(folder)


def image(runtime: Path) -> Image:
    """The base image with this vcfwd-runtime package in it, from the cache or built now.

    LabUnavailable: no root, no room, or the archive cannot be reached.
    """
    if os.geteuid() != 0:
        raise LabUnavailable("the lab makes network interfaces and a file system: run it as root")
    with locked() as folder:
        made = Image(folder / _digest(runtime))
        if not made.disk.exists():
            for old in folder.iterdir():
                if old.is_dir():
                    _remove(old)
            room(folder, BUILD_ROOM)
            _build(folder, made, runtime)
        room(folder, CACHED_ROOM)
        return Image(made.folder, _hold(made.folder, fcntl.LOCK_SH))


def _build(folder: Path, made: Image, runtime: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="building-", dir=folder) as work_name:
        work = Path(work_name)
        out = work / "image"
        out.mkdir()
        subprocess.run(
            [
                "ssh-keygen",
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-C",
                "lab",
                "-f",
                str(out / "id_ed25519"),
            ],
            check=True,
        )
        root = work / "root"
        _bootstrap(work, root, (out / "id_ed25519.pub").read_text(), runtime)
        if faults := contents.leaks_below(root, secrets()):
            raise RuntimeError(f"the image would tell of this host: {', '.join(faults)}")
        boot = root / "boot"
        shutil.copy(next(boot.glob("vmlinuz-*")), out / "vmlinuz")
        shutil.copy(next(boot.glob("initrd.img-*")), out / "initrd.img")
        raw = work / "base.img"
        with raw.open("wb") as disk:
            disk.truncate(int(DISK[:-1]) << 30)
        _run(["mke2fs", "-q", "-t", "ext4", "-d", str(root), str(raw)])
        _run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(out / "base.qcow2")])
        shutil.rmtree(root)
        out.rename(made.folder)


def secrets() -> dict[str, bytes]:
    """What may not be in an image: this host's archive, index and certificates; public ones may,
    as the release's own packages name them."""
    return {
        name: text
        for name, text in contents.secrets().items()
        if not name.startswith("package index ") and not text.endswith(b".debian.org")
    }


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise LabUnavailable(f"{command[0]} failed while the lab was built:\n{done.stdout[-4000:]}")


def _bootstrap(work: Path, root: Path, public_key: str, runtime: Path) -> None:
    before, after = work / "before", work / "after"
    before.write_text(BEFORE.format(modules="\n".join(MODULES)))
    after.write_text(
        AFTER.format(
            key=public_key.strip(),
            runtime=runtime,
            management=MANAGEMENT_MAC,
            media=" ".join(NIC_MACS),
        )
    )
    for hook in (before, after):
        hook.chmod(0o755)
    archive = mirror()
    # What it mounts is seen by nobody else, and goes when it ends, however that comes about.
    _run(
        [
            "unshare", "--mount", "--fork", "--kill-child", "--",
            "mmdebstrap", "--format=directory", "--variant=minbase",
            f"--include={','.join(PACKAGES)}",
            f"--aptopt=APT::Default-Release \"{SUITE}-backports\"",
            f"--essential-hook={before} \"$1\"",
            f"--customize-hook={after} \"$1\"",
            SUITE, str(root),
            f"deb {archive} {SUITE} main",
            f"deb {archive} {SUITE}-backports main",
        ]
    )  # fmt: skip


BEFORE = """#!/bin/sh
set -e
mkdir -p "$1/etc/initramfs-tools/conf.d"
printf 'MODULES=list\\nCOMPRESS=zstd\\n' > "$1/etc/initramfs-tools/conf.d/lab"
printf '%s\\n' '{modules}' > "$1/etc/initramfs-tools/modules"
"""

AFTER = """#!/bin/sh
set -e
ssh="$1$(chroot "$1" sh -c 'echo ~root')/.ssh"
mkdir -p "$ssh" "$1/etc/systemd/network" "$1/etc/systemd/system"
chmod 700 "$ssh"
echo '{key}' > "$ssh/authorized_keys"
echo 'lab' > "$1/etc/hostname"
cd "$1/etc/systemd/network"
printf '[Match]\\nMACAddress={management}\\n[Network]\\nDHCP=ipv4\\n' > 10-management.network
printf '[Match]\\nMACAddress={media}\\n[Link]\\nUnmanaged=yes\\n' > 20-media.network
cd /
chroot "$1" systemctl enable systemd-networkd ssh
chroot "$1" systemctl disable systemd-networkd-wait-online.service irqbalance.service
chroot "$1" systemctl mask apt-daily.timer apt-daily-upgrade.timer
cp '{runtime}' "$1/root/runtime.deb"
chroot "$1" apt-get -y -q --no-install-recommends install /root/runtime.deb \\
    libbpf1 libxdp1 libipsec-mb2 libssl3t64
mkdir -p "$1/srv/pool"
rm -f "$1/root/runtime.deb" "$1/etc/apt/apt.conf.d/99mmdebstrap"
rm -f "$1"/etc/apt/sources.list.d/* "$1/etc/apt/sources.list"
rm -rf "$1/var/lib/apt/lists/"* "$1/var/cache/apt/archives/"*.deb
: > "$1/etc/machine-id"
"""
