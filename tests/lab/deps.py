"""What the lab needs of this host: QEMU with an emulated igb, and the tools that make a Debian.

`python3 tests/lab/deps.py` as root installs it; Debian 12 has a QEMU that is too old, so its
backports are added as a source of their own, with the address that the host's own sources have.
Prints nothing when all is there.  Runs with the system's Python alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = ("mmdebstrap", "dpkg-dev", "e2fsprogs", "openssh-client")
QEMU = ("qemu-system-x86", "qemu-utils")
QEMU_MIN = (8, 0)  # the first with igb
SOURCES = Path("/etc/apt/sources.list.d")
OURS = SOURCES / "vcfwd-lab-backports.sources"
TIMEOUT_S = 900


def qemu_version() -> tuple[int, int] | None:
    """Of the QEMU that is installed; None: there is none."""
    program = shutil.which("qemu-system-x86_64")
    if program is None:
        return None
    words = subprocess.run(
        [program, "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    number = words.stdout.split("version", 1)[-1].split()[0].split(".")
    return int(number[0]), int(number[1])


def missing() -> list[str]:
    """Debian packages that are not installed; QEMU's also when it is too old."""
    found = []
    for name in PACKAGES:
        asked = subprocess.run(
            ["dpkg-query", "-W", "-f=${db:Status-Status}", name],
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.stdout != "installed":
            found.append(name)
    version = qemu_version()
    if version is None or version < QEMU_MIN or shutil.which("qemu-img") is None:
        found += QEMU
    return found


def _release() -> dict[str, str]:
    lines = Path("/etc/os-release").read_text().splitlines()
    return {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}


def mirror() -> str:
    """The address of this host's own Debian archive.  LookupError: its sources name none."""
    for file in sorted(SOURCES.glob("*.sources")):
        for stanza in file.read_text().split("\n\n"):
            lines = [line for line in stanza.splitlines() if ":" in line and line[0] not in "# "]
            fields = dict(line.split(":", 1) for line in lines)
            uri = fields.get("URIs", "").split()
            if (
                uri
                and uri[0].rstrip("/").endswith("/debian")
                and "main" in fields.get("Components", "")
            ):
                return uri[0]
    lists = [Path("/etc/apt/sources.list"), *sorted(SOURCES.glob("*.list"))]
    for file in lists:
        for line in file.read_text().splitlines() if file.exists() else []:
            words = [w for w in line.split() if not (w.startswith("[") or w.endswith("]"))]
            if words[:1] == ["deb"] and words[1].rstrip("/").endswith("/debian"):
                return words[1]
    raise LookupError(f"no source under {SOURCES} is a Debian archive: name one there")


def install(packages: list[str]) -> None:
    """By apt; from the backports where the release's own QEMU is too old."""
    release = _release().get("VERSION_CODENAME", "")
    apt = ["apt-get", "-y", "-q", "--no-install-recommends", "install"]
    if release == "bookworm":
        OURS.write_text(
            "Types: deb\n"
            f"URIs: {mirror()}\n"
            f"Suites: {release}-backports\n"
            "Components: main\n"
            "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        )
        packages = [f"{name}/{release}-backports" if name in QEMU else name for name in packages]
        apt += ["-t", f"{release}-backports"] if any("/" in name for name in packages) else []
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "-q", "update"], [*apt, *packages]):
        subprocess.run(
            command, check=True, env=environment, timeout=TIMEOUT_S, stdout=sys.stderr.fileno()
        )


def main() -> int:
    wanted = missing()
    if not wanted:
        return 0
    if os.geteuid() != 0:
        print(
            f"The lab needs these Debian packages: {' '.join(wanted)}. Run it as root once.",
            file=sys.stderr,
        )
        return 1
    try:
        install(wanted)
    except (LookupError, subprocess.SubprocessError) as error:
        print(f"cannot install what the lab needs: {error}", file=sys.stderr)
        return 1
    still = missing()
    if still:
        print(f"still missing after the installation: {' '.join(still)}", file=sys.stderr)
    return 1 if still else 0


if __name__ == "__main__":
    sys.exit(main())
