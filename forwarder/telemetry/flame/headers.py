"""Kernel headers for BCC: where they are, and one tree of them where Debian splits them in two.

BCC looks below /lib/modules/RELEASE.  Where that is missing (a kernel that is not Debian's), the
headers of any Debian kernel of this architecture serve, because our program reads no structure
of the kernel: a tree of links is made of the two halves, and named to BCC by BCC_KERNEL_SOURCE.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

_ARCH = {"x86_64": ("x86", "amd64"), "aarch64": ("arm64", "arm64")}
_PARTS = ("include", "arch/{arch}/include")


def _newest(sources: Path, flavour: str) -> tuple[Path, Path] | None:
    """The two halves of the newest version that is here in full."""

    def version(path: Path) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", path.name)]

    found = sources.glob(f"linux-headers-*-{flavour}")
    for own in sorted(found, key=version, reverse=True):
        common = own.with_name(own.name.removesuffix(f"-{flavour}") + "-common")
        if common.is_dir():
            return own, common
    return None


def environment(tree: Path, root: Path = Path("/")) -> dict[str, str] | None:
    """What BCC's environment needs, or None where there are no headers.  A tree of links is made
    at `tree` when it is needed.  `root` is where /lib and /usr are looked for."""
    release = root / "lib" / "modules" / platform.release()
    if (release / "build").is_dir() or (release / "source").is_dir():
        return {}
    arch, flavour = _ARCH.get(platform.machine(), ("", ""))
    halves = _newest(root / "usr" / "src", flavour) if arch else None
    if halves is None:
        return None
    for part in (text.format(arch=arch) for text in _PARTS):
        (tree / part).mkdir(parents=True, exist_ok=True)
        for half in halves:
            for entry in os.scandir(half / part) if (half / part).is_dir() else ():
                link = tree / part / entry.name
                if not link.is_symlink():
                    link.symlink_to(entry.path)
    return {"BCC_KERNEL_SOURCE": str(tree)}
