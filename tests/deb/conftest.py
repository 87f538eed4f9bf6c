"""The packages, built once, and a Debian with them installed: probes, and skips that say why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "configs" / "debian"))

from deb_kit import Installed, Packages  # noqa: E402 (needs configs/debian on the path)

BUILD_S = 1500


@pytest.fixture(scope="session")
def packages() -> Packages:
    """vcfwd-runtime and vcfwd as `make deb` leaves them."""
    if os.geteuid() != 0:
        pytest.skip("a package is built in a chroot, which needs root")
    words = ["make", "-s", "deb"]
    made = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, timeout=BUILD_S, check=False
    )
    if made.returncode != 0:
        pytest.fail(f"`make deb` failed: {made.stderr[-1500:]}", pytrace=False)
    runtime, own = (Path(line) for line in made.stdout.splitlines()[-2:])
    return Packages(runtime, own, made.stderr)


@pytest.fixture(scope="session")
def installed(packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A fresh minimal Debian into which both were installed.  Each use begins with it anew."""
    return Installed.make(packages, tmp_path_factory.mktemp("debian"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whichever test comes first waits for the build."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(BUILD_S))
