"""Builds the Debian packages vcfwd-runtime and vcfwd: see README.md beside this file.

    /usr/bin/python3 configs/debian/deb.py [--suite trixie] [--version 1.2.3]

Standard output ends with the two paths; everything else goes to standard error.  Exit status 0,
or 1 with a sentence and no path.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import contents
from chroot import SUITES, Chroot, ChrootError, cache_home, known, locked, open_chroot, say
from lock import LockError, runtime

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SIZE_MAX = 10_000_000
"""Bytes of the package vcfwd, which is what an upgrade moves."""
LEFT_OUT = ("forwarder/demo/", "forwarder/cli/demo.py", "forwarder/cli/demo_browser.py")
"""What needs codecs and browsers, which vcfwd-runtime does not have."""
TAKEN = ("forwarder/", "c_helpers/", "ebpf/", "configs/", "LICENSE")


@dataclass(frozen=True)
class Job:
    """One build: `work` is a scratch folder, `version` that of the package vcfwd."""

    chroot: Chroot
    work: Path
    version: str

    @property
    def suffix(self) -> str:
        return f"~deb{SUITES[self.chroot.suite]}"


def git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ChrootError(f"git {words[0]}: {done.stderr.strip()[:200]}")
    return done.stdout.strip()


def own_version() -> str:
    """The version of the tree: that of the code, the last commit's time and name."""
    text = (ROOT / "forwarder" / "__init__.py").read_text()
    plain = re.search(r'^__version__ = "([\w.]+)"', text, re.MULTILINE)
    if plain is None:
        raise ChrootError("forwarder/__init__.py says no __version__")
    when = git("log", "-1", "--format=%cd", "--date=format:%Y%m%d%H%M%S")
    dirty = ".changed" if git("status", "--porcelain", "--", *TAKEN) else ""
    return f"{plain[1]}+git{when}.{git('rev-parse', '--short=8', 'HEAD')}{dirty}"


def changelog(source: str, version: str, control: str) -> str:
    """A debian/changelog of one entry, dated by the last commit."""
    maintainer = re.search(r"^Maintainer: (.+)$", control, re.MULTILINE)
    if maintainer is None:
        raise ChrootError(f"the control file of {source} names no Maintainer")
    head = f"{source} ({version}) unstable; urgency=medium"
    sign = f" -- {maintainer[1]}  {git('log', '-1', '--format=%cD')}"
    return f"{head}\n\n  * See CHANGELOG.md of the source.\n\n{sign}\n"


def lay_out(tree: Path, name: str, version: str) -> None:
    """debian/ of a source tree, from the folder of its package."""
    shutil.copytree(HERE / name, tree / "debian")
    control = (HERE / name / "control").read_text()
    (tree / "debian" / "changelog").write_text(changelog(tree.name, version, control))
    (tree / "debian" / "rules").chmod(0o755)


def build(job: Job, tree: Path, *, opt: Path, network: bool, env: dict[str, str]) -> list[Path]:
    """dpkg-buildpackage in the chroot; answers the packages."""
    say(f"building {tree.name} for {job.chroot.suite}")
    shell = f"cd /build/{tree.name} && dpkg-buildpackage -b -us -uc"
    job.chroot.run(
        ["/bin/sh", "-c", shell],
        binds={tree.parent: "/build", opt: "/opt/vcfwd"},
        network=network,
        env=env,
    )
    return sorted(tree.parent.glob("*.deb"))


def build_runtime(job: Job) -> Path:
    """The virtual environment; made once for each lock file."""
    text = runtime((ROOT / "requirements.lock").read_text(), (ROOT / "pyproject.toml").read_text())
    recipe = [path.read_text() for path in sorted((HERE / "runtime").rglob("*")) if path.is_file()]
    key = hashlib.sha256("\0".join([job.chroot.home.name, text, *recipe]).encode()).hexdigest()[:8]
    home = cache_home() / f"{job.chroot.suite}-runtime-{key}"
    if found := sorted(home.glob("*.deb")):
        return found[0]
    when = git("log", "-1", "--format=%cd", "--date=format:%Y%m%d.%H%M", "--", "requirements.lock")
    tree, opt = job.work / "runtime" / "vcfwd-runtime", job.work / "venv"
    tree.mkdir(parents=True)
    opt.mkdir()
    lay_out(tree, "runtime", f"{when}+{key}{job.suffix}")
    (tree / "requirements.txt").write_text(text)
    made = build(job, tree, opt=opt, network=True, env={})
    for old in cache_home().glob(f"{job.chroot.suite}-runtime-*"):
        shutil.rmtree(old)
    home.mkdir(parents=True)
    part = home / "part"
    shutil.copy2(made[0], part)
    return part.rename(home / made[0].name)  # a whole file or none


def field(package: Path, name: str) -> str:
    words = ["dpkg-deb", "--field", str(package), name]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def build_vcfwd(job: Job, runtime_deb: Path) -> Path:
    """Our own code, against the environment that it will run in."""
    tree, unpacked = job.work / "own" / "vcfwd", job.work / "unpacked"
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *TAKEN)
    for name in sorted(set(listed.split("\0"))):
        if name and not name.startswith(LEFT_OUT) and (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    lay_out(tree, "vcfwd", f"{job.version}{job.suffix}")
    subprocess.run(["dpkg-deb", "--extract", str(runtime_deb), str(unpacked)], check=True)
    env = {
        "DEB_BUILD_OPTIONS": "noautodbgsym",
        "VCFWD_VERSION": job.version,
        "RUNTIME_VERSION": field(runtime_deb, "Version"),
    }
    made = build(job, tree, opt=unpacked / "opt" / "vcfwd", network=False, env=env)
    return next(path for path in made if path.name.startswith("vcfwd_"))


def examine(job: Job, packages: list[Path]) -> None:
    """lintian, size, and nothing of this host inside.  ChrootError when one is not well."""
    shelf = job.work / "shelf"
    shelf.mkdir()
    for package in packages:
        shutil.copy2(package, shelf / package.name)
    names = [f"/build/{package.name}" for package in packages]
    words = ["lintian", "--allow-root", "--fail-on", "error", "--tag-display-limit", "0"]
    job.chroot.run([*words, *names], binds={shelf: "/build"})
    size = packages[1].stat().st_size
    if size > SIZE_MAX:
        raise ChrootError(f"{packages[1].name} has {size} bytes, at most {SIZE_MAX}")
    for package in packages:
        if faults := contents.leaks(package, contents.secrets()):
            raise ChrootError(
                f"{package.name} holds what belongs to this host: {'; '.join(faults)}"
            )


def make(suite: str, version: str, out: Path) -> list[Path]:
    """Both packages in `out`: vcfwd-runtime, vcfwd."""
    with locked(cache_home()):
        chroot = open_chroot(suite)
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="work-", dir=cache_home()) as scratch:
            job = Job(chroot, Path(scratch), version)
            first = build_runtime(job)
            packages = [first, build_vcfwd(job, first)]
            examine(job, packages)
            for old in out.glob("*.deb"):
                old.unlink()
            return [Path(shutil.copy2(package, out / package.name)) for package in packages]


def main() -> int:
    parser = argparse.ArgumentParser(description="Builds the Debian packages.")
    parser.add_argument("--suite", default="trixie", help=" or ".join(SUITES))
    parser.add_argument("--version", default="", help="instead of the version of the tree")
    parser.add_argument("--out", type=Path, help="default: build/deb/SUITE")
    given = parser.parse_args()
    out = given.out or ROOT / "build" / "deb" / given.suite
    try:
        if os.geteuid() != 0:
            raise ChrootError("a package is built in a chroot, which needs root")
        made = make(known(given.suite), given.version or own_version(), out.resolve())
    except (ChrootError, LockError, subprocess.SubprocessError, OSError) as error:
        print(f"make deb: {error}", file=sys.stderr)
        return 1
    for package in made:
        print(package)
    return 0


if __name__ == "__main__":
    sys.exit(main())
