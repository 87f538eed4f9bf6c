"""The rules of style, executed over the tree that git tracks."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE_MAX, TEST_MAX, FUNCTION_MAX, COLUMNS_MAX = 400, 600, 70, 120

# Files over the limit, each with its reason.
LONG_FILES: dict[str, str] = {
    "c_helpers/include/vcfwd/abi.h": "the contract is one file, so that one hash covers it",
}
LONG_FUNCTIONS: dict[str, str] = {}

# Baselines, kept as they were measured.
AS_THEY_WERE = ("perf/peers/",)

# A package may import from its own row and the rows below it.
LAYERS = [
    {"cli", "demo"},
    {"supervisor", "client"},
    {"signaling", "telemetry", "host"},
    {"dataplane", "net", "ice", "store"},
    {"rooms", "rtp"},
    {"ids", "errors", "clock", "config", "configchecks", "configdirs", "table", "commands"},
]
# "room" alone is also buffer space, and "user space" a place: neither is policy.
POLICY_WORDS = (
    r"\b(rooms|room_id|participants?|users?(?!\s+space|-space|$)"
    r"|tracks?|publishers?|subscribers?|layers?)\b"
)
SANS_IO = ("socket", "asyncio", "time", "cffi", "logging", "os", "random", "threading")


def tracked(*suffixes: str) -> list[Path]:
    out = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    paths = [ROOT / name for name in out.split("\0") if name.endswith(suffixes)]
    paths = [path for path in paths if not rel(path).startswith(AS_THEY_WERE)]
    return [path for path in paths if path.exists()]


def rel(path: Path) -> str:
    return str(path.relative_to(ROOT))


def code_lines(path: Path) -> int:
    """Lines without C block comments and without blank lines at the end."""
    text = path.read_text()
    if path.suffix in (".c", ".h"):
        text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
        return sum(1 for line in text.splitlines() if line.strip())
    return len(text.splitlines())


def test_files_are_short() -> None:
    faults = []
    for path in tracked(".py", ".c", ".h"):
        limit = TEST_MAX if rel(path).startswith("tests/") else SOURCE_MAX
        if code_lines(path) > limit and rel(path) not in LONG_FILES:
            faults.append(f"{rel(path)}: {code_lines(path)} lines, at most {limit}")
    assert not faults, "\n".join(faults)


def test_exceptions_are_still_needed() -> None:
    for name in LONG_FILES:
        path = ROOT / name
        assert path.exists(), f"{name} is gone: take it off LONG_FILES"
        assert code_lines(path) > SOURCE_MAX or name.endswith("abi.h"), f"{name} is short now"


def test_python_functions_are_short() -> None:
    faults = []
    for path in tracked(".py"):
        if rel(path).startswith("tests/"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                name = f"{rel(path)}:{node.name}"
                if size > FUNCTION_MAX and name not in LONG_FUNCTIONS:
                    faults.append(f"{name}: {size} lines, at most {FUNCTION_MAX}")
    assert not faults, "\n".join(faults)


def test_lines_are_not_wide() -> None:
    faults = [
        f"{rel(path)}:{i}"
        for path in tracked(".py", ".c", ".h")
        for i, line in enumerate(path.read_text().splitlines(), 1)
        if len(line.expandtabs(4)) > COLUMNS_MAX
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("folder", ["c_helpers/", "ebpf/"])
def test_mechanism_does_not_know_policy(folder: str) -> None:
    pattern = re.compile(POLICY_WORDS, re.I)
    faults = []
    for path in tracked(".c", ".h"):
        if not rel(path).startswith(folder):
            continue
        for i, line in enumerate(path.read_text().splitlines(), 1):
            if pattern.search(line):
                faults.append(f"{rel(path)}:{i}: {line.strip()}")
    assert not faults, "\n".join(faults)


def layer(package: str) -> int | None:
    return next((i for i, row in enumerate(LAYERS) if package in row), None)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_imports_point_down() -> None:
    faults = []
    for path in tracked(".py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] != "forwarder" or len(parts) < 2 or parts[1] in ("__init__", "__main__"):
            continue
        own = layer(parts[1])
        assert own is not None, f"{rel(path)}: package {parts[1]} is in no layer of {__file__}"
        for name in imports(path):
            target = name.split(".")
            if target[0] != "forwarder" or len(target) < 2 or target[1] == parts[1]:
                continue
            below = layer(target[1])
            if below is not None and below < own:
                faults.append(f"{rel(path)} imports {name} from a layer above")
    assert not faults, "\n".join(sorted(set(faults)))


def test_rooms_are_sans_io() -> None:
    faults = []
    for path in tracked(".py"):
        if not rel(path).startswith(("forwarder/rooms/", "forwarder/ice/")):
            continue
        for name in imports(path):
            if name.split(".")[0] in SANS_IO:
                faults.append(f"{rel(path)} imports {name}")
    assert not faults, "\n".join(faults)


def test_only_dataplane_imports_cffi_modules() -> None:
    for path in tracked(".py"):
        if rel(path).startswith(("forwarder/dataplane/", "tests/", "c_helpers/")):
            continue
        for name in imports(path):
            assert not name.startswith(("forwarder.dataplane._", "cffi")), f"{rel(path)}: {name}"
            if rel(path).startswith("forwarder/") and name.split(".")[0] == "pyroute2":
                assert rel(path).startswith(("forwarder/net/", "forwarder/demo/")), rel(path)


@pytest.mark.parametrize("folder", ["forwarder", "ebpf", "c_helpers", "configs", "tests", "perf"])
def test_each_folder_has_a_readme_that_names_its_files(folder: str) -> None:
    readme = ROOT / folder / "README.md"
    assert readme.exists(), f"{folder}/README.md is missing"
    text = readme.read_text()
    assert sum(line.startswith("# ") for line in text.splitlines()) == 1, "one title each"
    if folder in ("ebpf", "c_helpers"):
        for path in tracked(".c", ".h"):
            name = rel(path)
            if name.startswith(folder + "/"):
                assert path.stem in text, f"{folder}/README.md does not name {path.name}"
    if folder == "forwarder":
        for path in (ROOT / folder).iterdir():
            if path.is_dir() and (path / "__init__.py").exists():
                assert f"{path.name}/" in text, f"forwarder/README.md does not name {path.name}/"


def test_cancellation_is_not_lost() -> None:
    """asyncio.wait_for of Python 3.11 forgets a cancel() that comes in one turn of the loop with
    what is waited for, and stop() then waits for ever: asyncio.timeout does not."""
    found = [rel(p) for p in tracked(".py") if rel(p).startswith("forwarder/")]
    assert found
    assert not [p for p in found if "asyncio.wait_for(" in (ROOT / p).read_text()]


def test_no_stubs_left() -> None:
    marker = re.compile(r"\b(TODO|FIXME|XXX)\b|raise NotImplementedError")
    own = Path(__file__).name
    faults = [
        f"{rel(path)}:{i}: {line.strip()}"
        for path in tracked(".py", ".c", ".h")
        if path.name != own
        for i, line in enumerate(path.read_text().splitlines(), 1)
        if marker.search(line)
    ]
    assert not faults, "\n".join(faults)
