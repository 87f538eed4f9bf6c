"""What may not be in a package: the mirror, the package index and the certificates of the host
that built it.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from chroot import sources

OWN_CERTIFICATES = Path("/usr/local/share/ca-certificates")
"""Where Debian keeps what an administrator trusts besides the usual ones."""
INDEXES = ("pypi.org/simple", "files.pythonhosted.org")
"""The addresses that pip asks when nobody tells it another."""


def secrets() -> dict[str, bytes]:
    """What to look for, by name."""
    found = {f"package index {name}": name.encode() for name in INDEXES}
    hosts = {urlsplit(address).netloc for address, _ in sources()}
    for key in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        hosts |= {urlsplit(word).netloc for word in os.environ.get(key, "").split()}
    for name in ("/etc/pip.conf", str(Path.home() / ".config/pip/pip.conf")):
        if Path(name).is_file():
            text = Path(name).read_text(errors="replace")
            hosts |= {urlsplit(url).netloc for url in re.findall(r"https?://\S+", text)}
    found |= {f"host {host}": host.encode() for host in hosts if host}
    if links := os.environ.get("PIP_FIND_LINKS"):
        found["pip's find-links"] = links.encode()
    for path in sorted(OWN_CERTIFICATES.rglob("*.crt")):
        lines = [line for line in path.read_bytes().splitlines() if len(line) == 64]
        if lines:  # the last whole line: the first ones are alike in many certificates
            found[f"certificate {path.name}"] = lines[-1]
    return found


def leaks(package: Path, wanted: dict[str, bytes]) -> list[str]:
    """Sentences for each place of the package that holds one of `wanted`."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg-deb", "--raw-extract", str(package), f"{folder}/x"], check=True)
        return leaks_below(Path(folder, "x"), wanted)


def leaks_below(top: Path, wanted: dict[str, bytes]) -> list[str]:
    """Sentences for each file below `top` that holds one of `wanted`."""
    faults = []
    for path in sorted(top.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        raw = path.read_bytes()
        where = path.relative_to(top)
        faults += [f"{name} in {where}" for name, text in wanted.items() if text in raw]
    return faults
