"""What is in the packages, what is not, and what lintian says."""

from __future__ import annotations

import re
import subprocess

import contents
import lock
import pytest
from deb_kit import ROOT, UNITS, Packages

OWN_MAX = 10_000_000
OUT = ROOT / "build" / "deb"
OVERRIDES = sorted((ROOT / "configs" / "debian").glob("*/*.lintian-overrides"))


def test_runtime_first_and_both_in_build_deb(packages: Packages) -> None:
    assert packages.runtime.name.startswith("vcfwd-runtime_")
    assert packages.own.name.startswith("vcfwd_")
    assert packages.own.parent == packages.runtime.parent == OUT / packages.suite.name
    assert packages.own.stat().st_size < OWN_MAX


def test_no_path_on_a_failure() -> None:
    """Who takes the last two lines must get none."""
    words = ["make", "-s", "deb", "SUITE=sid"]
    made = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert made.returncode != 0 and made.stdout == ""
    assert "there is no SUITE sid; it is one of trixie, bookworm" in made.stderr


def test_vcfwd_is_unpacked_fast(packages: Packages) -> None:
    words = ["ar", "t", str(packages.own)]
    members = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert members == ["debian-binary", "control.tar.gz", "data.tar.gz"]


def test_vcfwd_wants_exactly_this_runtime(packages: Packages) -> None:
    version = packages.field("Version", packages.runtime)
    assert f"vcfwd-runtime (= {version})" in packages.field("Depends")
    assert packages.suite.python_range in packages.field("Depends", packages.runtime)


def test_the_version_tells_the_release(packages: Packages) -> None:
    """So that who upgrades Debian gets the build for the newer one."""
    for package in (packages.runtime, packages.own):
        assert packages.field("Version", package).endswith(packages.suite.suffix)


def test_nothing_of_this_host_is_inside(packages: Packages) -> None:
    wanted = contents.secrets()
    assert any(name.startswith("host ") for name in wanted)
    for package in (packages.runtime, packages.own):
        assert contents.leaks(package, wanted) == []


def test_the_search_for_it_would_find_it(packages: Packages) -> None:
    """The address in the package's own Maintainer field stands for one that must not be there."""
    found = contents.leaks(packages.own, {"a stand-in": b"maintainers@vcfwd"})
    assert "a stand-in in DEBIAN/control" in found


def test_owned_by_root_and_writable_by_nobody_else(packages: Packages) -> None:
    for package in (packages.runtime, packages.own):
        for name, (mode, _) in packages.files(package).items():
            assert mode.endswith("root/root"), (name, mode)
            assert mode[0] == "l" or mode[5] == mode[8] == "-", (name, mode)


def test_no_codecs_no_pip_no_programs_of_libraries(packages: Packages) -> None:
    files = packages.files(packages.runtime)
    programs = {name for name in files if re.search(r"^/opt/vcfwd/bin/.", name)}
    assert {name.split(" ")[0].rpartition("/")[2] for name in programs} == {
        "python", "python3", f"python{packages.suite.python}",
    }  # fmt: skip
    assert not [name for name in files if re.search(r"site-packages/(pip|numpy|av|numba)/", name)]
    assert not [name for name in packages.files(packages.own) if "/forwarder/demo/" in name]


def test_every_module_comes_with_its_byte_code(packages: Packages) -> None:
    for package in (packages.runtime, packages.own):
        files = packages.files(package)
        for name in files:
            if name.endswith(".py") and ("site-packages" in name or "/forwarder/" in name):
                folder, _, base = name.rpartition("/")
                compiled = f"{folder}/__pycache__/{base[:-3]}{packages.suite.byte_code}"
                assert compiled in files, name


def test_scripts_compile_nothing(packages: Packages) -> None:
    for name in ("preinst", "postinst", "prerm", "postrm"):
        assert not re.search(r"compile|gcc|clang|pip |make ", packages.script(name)), name


def test_the_data_plane_is_never_stopped_by_an_upgrade(packages: Packages) -> None:
    """Only a removal, and only an upgrade that was forced, touch it."""
    postinst = packages.script("postinst")
    lines = [line.strip() for line in postinst.splitlines() if "vcfwd-dataplane.service" in line]
    touching = [line for line in lines if re.search(r"systemctl|invoke", line)]
    assert touching == ["systemctl try-restart vcfwd-dataplane.service || true"]
    forced = postinst.index('"${VCFWD_UPGRADE:-}" = force')
    assert forced < postinst.index(touching[0])
    assert re.search(r'if \[ "\$1" = remove \]; then\n\tfor unit', packages.script("prerm"))


@pytest.mark.parametrize("path", OVERRIDES, ids=lambda path: path.stem)
def test_each_override_has_its_reason(path) -> None:
    reason = False
    for line in path.read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[\w-]+: [\w-]+", line), line
        assert line.startswith("#") or reason, f"{line}: no reason above it"
        reason = True


def test_lintian_is_silent(packages: Packages) -> None:
    assert not re.findall(r"^[EW]: .*", packages.told, re.MULTILINE)


def test_the_runtime_is_a_part_of_the_lock_file() -> None:
    whole = (ROOT / "requirements.lock").read_text()
    part = lock.runtime(whole, (ROOT / "pyproject.toml").read_text())
    names = {line.split("==")[0] for line in part.splitlines()}
    assert {"aioquic", "fastapi", "uvloop", "cffi", "pycparser"} <= names
    assert not names & {"pytest", "mypy", "av", "numpy", "playwright", "ruff"}
    for line in part.splitlines():
        assert re.fullmatch(r"\S+==\S+( --hash=sha256:[0-9a-f]{64})+", line), line


def test_a_lock_file_that_does_not_fit_is_named() -> None:
    project = '[project]\ndependencies = ["one>=1", "two"]\n'
    one = f"one==1.0 \\\n    --hash=sha256:{'0' * 64}\n    # via vcfwd (pyproject.toml)\n"
    with pytest.raises(lock.LockError, match="lacks two"):
        lock.runtime(one, project)
    with pytest.raises(lock.LockError, match="no hash"):
        lock.runtime("one==1.0\n    # via vcfwd (pyproject.toml)\n", project)
    with pytest.raises(lock.LockError, match="line 1"):
        lock.runtime("-r other.txt\n", project)


def test_wants_never_more() -> None:
    text = (UNITS / "vcfwd.vcfwd-supervisor.service").read_text()
    assert "Wants=vcfwd-dataplane.service" in text
    assert not re.search(r"^(BindsTo|Requires|PartOf)=", text, re.MULTILINE)
    assert not re.search(r"^MemoryDenyWriteExecute=", text, re.MULTILINE)
