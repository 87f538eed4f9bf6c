"""The packages, built once, and a Debian with them installed: probes, and skips that say why."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "configs" / "debian"))

from deb_kit import Installed, Packages, chosen_suite  # noqa: E402 (needs configs/debian on the path)

BUILD_S = 1500


@pytest.fixture(scope="session")
def packages() -> Packages:
    """vcfwd-runtime and vcfwd as `make deb SUITE=...` leaves them."""
    if os.geteuid() != 0:
        pytest.skip("a package is built in a chroot, which needs root")
    suite = chosen_suite()
    words = ["make", "-s", "deb", f"SUITE={suite.name}"]
    made = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, timeout=BUILD_S, check=False
    )
    if made.returncode != 0:
        pytest.fail(f"`{' '.join(words)}` failed: {made.stderr[-1500:]}", pytrace=False)
    runtime, own = (Path(line) for line in made.stdout.splitlines()[-2:])
    return Packages(suite, runtime, own, made.stderr)


@pytest.fixture(scope="session")
def installed(packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A fresh minimal Debian into which both were installed.  Each use begins with it anew."""
    return Installed.make(packages, tmp_path_factory.mktemp("debian"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whichever test comes first waits for the build."""
    for item in _ours(items):
        item.add_marker(pytest.mark.timeout(BUILD_S))


def pytest_report_collectionfinish(items: Sequence[pytest.Item]) -> list[str]:
    """Above the results; pytest_report_header of a folder below is not asked by `make test`."""
    if not _ours(items):
        return []
    try:
        suite = chosen_suite()
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    return [f"Debian packages of {suite.name} (VCFWD_DEB_SUITE)"]


def _ours(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    return [item for item in items if Path(__file__).parent in item.path.parents]
