"""The lab node as a virtual machine: QEMU with two NUMA nodes and an emulated igb on each.

A Machine owns one QEMU process, one network namespace in which it runs (its taps `lt0` and `lt1`
begin there), and the folder with its disk.  The disk is an overlay: nothing is written to the
image.  ssh goes through QEMU's own user network (`restrict=on`: the node reaches nothing outside).
Every wait is bounded; LabError says what did not happen.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.image import MANAGEMENT_MAC, NIC_MACS, Image

BOOT_S = 400.0  # seen: 75 to 90 s; two busy cores take several times that
SSH_S = 120.0
POWEROFF_S = 120.0
SSH_PORT = 2222  # in the machine's own namespace
TAPS = ("lt0", "lt1")
CPUS = 4
BOOT_LINE = "root=/dev/vda rw console=ttyS0 quiet mitigations=off nokaslr"


class LabError(Exception):
    """Something on the lab node did not happen."""


def arguments(
    image: Image, disk: Path, monitor: Path, console: Path, boot_more: str = ""
) -> list[str]:
    """QEMU's command line; the same for a machine that boots and one that is restored."""
    line = ["qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"]
    line += ["-smp", f"{CPUS},sockets=2,cores=2", "-m", "2560"]
    for node in (0, 1):
        line += ["-object", f"memory-backend-ram,size=1280M,id=m{node}"]
        line += ["-numa", f"node,nodeid={node},cpus={2 * node}-{2 * node + 1},memdev=m{node}"]
    for node in (0, 1):
        line += [
            "-device",
            f"pxb-pcie,id=pxb{node},bus_nr={64 + 64 * node},numa_node={node},bus=pcie.0",
        ]
        line += ["-device", f"pcie-root-port,id=rp{node},bus=pxb{node},chassis={10 + node}"]
    line += ["-netdev", f"user,id=mg,restrict=on,hostfwd=tcp:127.0.0.1:{SSH_PORT}-:22"]
    line += ["-device", f"virtio-net-pci,netdev=mg,romfile=,bus=pcie.0,mac={MANAGEMENT_MAC}"]
    for node, tap in enumerate(TAPS):
        line += ["-netdev", f"tap,id=t{node},ifname={tap},script=no,downscript=no"]
        line += ["-device", f"igb,netdev=t{node},bus=rp{node},romfile=,mac={NIC_MACS[node]}"]
    line += ["-drive", f"file={disk},format=qcow2,if=none,id=d0,cache=unsafe"]
    line += ["-device", "virtio-blk-pci,drive=d0,bus=pcie.0"]
    line += ["-kernel", str(image.kernel), "-initrd", str(image.initrd)]
    line += ["-append", f"{BOOT_LINE} {boot_more}".strip()]
    line += ["-display", "none", "-serial", f"file:{console}"]
    line += ["-monitor", f"unix:{monitor},server,nowait"]
    return line


def fingerprint(image: Image) -> str:
    """Names what a snapshot can be restored into: the image, the QEMU, the devices."""
    version = subprocess.run(
        ["qemu-system-x86_64", "--version"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    nowhere = Path("/")
    made_of = repr((version, image.folder.name, arguments(image, nowhere, nowhere, nowhere)))
    return hashlib.sha256(made_of.encode()).hexdigest()[:16]


@dataclass
class Machine:
    """One lab node.  `folder` is its own; `name` is in the name of its namespace."""

    image: Image
    folder: Path
    name: str
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def namespace(self) -> str:
        return f"lab-{self.name}"

    @property
    def disk(self) -> Path:
        return self.folder / "node.qcow2"

    @property
    def _monitor(self) -> Path:
        return self.folder / "monitor"

    @property
    def console(self) -> Path:
        return self.folder / "console.log"

    def new_disk(self) -> None:
        """An empty overlay over the image."""
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(self.image.disk), "-F", "qcow2",
             str(self.disk)])  # fmt: skip

    def start(self, restore: str = "", boot_more: str = "") -> None:
        """Starts QEMU: from a snapshot of its disk, or by booting (then `wait_ssh`)."""
        if not Path(f"/run/netns/{self.namespace}").exists():
            run(["ip", "netns", "add", self.namespace])
            self.outside("ip", "link", "set", "lo", "up")
        there = self.outside("ip", "-br", "link")
        for tap in TAPS:
            if tap not in there:  # it stays when QEMU ends, and with it what it is joined to
                self.outside("ip", "tuntap", "add", tap, "mode", "tap")
            self.outside("ip", "link", "set", tap, "up")
        line = arguments(self.image, self.disk, self._monitor, self.console, boot_more)
        if restore:
            line += ["-loadvm", restore]
        self._monitor.unlink(missing_ok=True)
        log = (self.folder / "qemu.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                self._inside(line), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def _inside(self, line: list[str]) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.namespace}", "--", *line]

    def outside(self, *command: str, timeout_s: float = 60.0) -> str:
        """A command on this host, in the machine's namespace."""
        return run(self._inside(list(command)), timeout_s=timeout_s)

    def stop(self, orderly: bool = False) -> None:
        """Ends QEMU; `orderly`: by poweroff, so that the disk boots again."""
        if self.process is None:
            return
        if orderly:
            with contextlib.suppress(LabError):
                self.ssh("systemctl poweroff", check=False, timeout_s=30)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(POWEROFF_S)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(30)
        self.process = None

    def close(self) -> None:
        self.stop()
        if Path(f"/run/netns/{self.namespace}").exists():
            run(["ip", "netns", "del", self.namespace])
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- the monitor ------------------------------------------------------------------------

    def monitor(self, command: str, timeout_s: float = 120.0) -> str:
        """One command of QEMU's human monitor, and what it answered."""
        end = time.monotonic() + timeout_s
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(timeout_s)
            while True:
                try:
                    link.connect(str(self._monitor))
                    break
                except OSError as error:
                    if time.monotonic() > end or self._died():
                        raise LabError(f"QEMU's monitor cannot be reached: {error}") from error
                    time.sleep(0.05)
            self._prompt(link, end)
            link.sendall(command.encode() + b"\n")
            return self._prompt(link, end)

    def _died(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def _prompt(self, link: socket.socket, end: float) -> str:
        text = b""
        while not text.rstrip().endswith(b"(qemu)"):
            if time.monotonic() > end:
                raise LabError(f"QEMU's monitor does not answer: {text[-200:]!r}")
            data = link.recv(65536)
            if not data:
                raise LabError(f"QEMU ended: {self.log()}")
            text += data
        return text.decode(errors="replace")

    def log(self) -> str:
        file = self.folder / "qemu.log"
        return file.read_text(errors="replace")[-2000:] if file.exists() else ""

    def save(self, snapshot: str) -> None:
        answer = self.monitor(f"savevm {snapshot}")
        if "Error" in answer:
            raise LabError(f"the snapshot {snapshot} was not taken: {answer}")

    def restore(self, snapshot: str) -> None:
        """Back to the snapshot, within the running QEMU; the clock is set anew."""
        answer = self.monitor(f"loadvm {snapshot}")
        if "Error" in answer:
            raise LabError(f"the snapshot {snapshot} cannot be restored: {answer}")
        self.wait_ssh(SSH_S)
        self.set_clock()

    # ---- ssh --------------------------------------------------------------------------------

    def _ssh_options(self) -> list[str]:
        return [
            "-i", str(self.image.key), "-p", str(SSH_PORT), "-o", "StrictHostKeyChecking=no",
            "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=10",
            "-o", "BatchMode=yes", "-o", "ServerAliveInterval=15",
        ]  # fmt: skip

    def ssh(
        self, command: str, *, timeout_s: float = SSH_S, check: bool = True, data: bytes = b""
    ) -> str:
        """A shell line on the node; its stdout, and LabError with its stderr when it fails."""
        line = self._inside(["ssh", *self._ssh_options(), "root@127.0.0.1", command])
        try:
            done = subprocess.run(
                line, input=data, capture_output=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"on the node, after {timeout_s:g} s not done: {command}") from error
        if check and done.returncode:
            raise LabError(
                f"on the node, status {done.returncode}: {command}\n"
                f"{done.stderr.decode(errors='replace')[-3000:]}{done.stdout.decode(errors='replace')[-2000:]}"
            )
        return done.stdout.decode(errors="replace")

    def copy(self, file: Path, to: str) -> None:
        """A file of this host to a path of the node."""
        self.ssh(f"cat > '{to}'", data=file.read_bytes(), timeout_s=300)

    def wait_ssh(self, timeout_s: float = BOOT_S) -> None:
        end = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(LabError):
                if self.ssh("echo ready", timeout_s=20).strip() == "ready":
                    return
            if self._died():
                raise LabError(f"QEMU ended: {self.log()}")
            if time.monotonic() > end:
                tail = self.console.read_text(errors="replace")[-2000:]
                raise LabError(f"no ssh after {timeout_s:g} s; the console ends with:\n{tail}")
            time.sleep(0.5)

    def set_clock(self) -> None:
        self.ssh(f"date -u -s @{time.time():.0f} >/dev/null")


def run(command: list[str], *, timeout_s: float = 120.0) -> str:
    """A command on this host; its stdout, and LabError with its words when it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"after {timeout_s:g} s not done: {' '.join(command)}") from error
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
