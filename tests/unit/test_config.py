"""The configuration: the manual agrees with the classes, every fault is reported at once."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder import config, configdirs
from forwarder.errors import ConfigError
from forwarder.signaling.tokens import EXAMPLE_KEY


def faults_of(path=None, overrides=None, **where) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.load(path, overrides, **where)
    return caught.value.faults


@pytest.fixture
def file(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "node.toml"
        path.write_text(text)
        return path

    return write


def test_the_manual_has_every_key_and_no_other():
    tables = tomllib.loads(config.default_file().read_text())
    assert list(tables) == list(config.SECTIONS)
    for name, kind in config.SECTIONS.items():
        assert list(tables[name]) == [f.name for f in dataclasses.fields(kind)], name
    sections = [f.name for f in dataclasses.fields(config.Config) if f.name != "notes"]
    assert sections == list(config.SECTIONS)


def test_each_key_of_the_manual_is_explained_above_it():
    lines = config.default_file().read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"[a-z_]+ = ", line):
            above = number - 1
            while re.match(r"[a-z_]+ = ", lines[above]):  # keys that share one explanation
                above -= 1
            assert lines[above].startswith("# "), line
    comments = sum(line.startswith("#") for line in lines)
    assert comments > 2 * sum(1 for line in lines if re.match(r"[a-z_]+ = ", line))


def test_classes_have_no_defaults_of_their_own():
    for kind in config.SECTIONS.values():
        for f in dataclasses.fields(kind):
            assert f.default is dataclasses.MISSING
            assert f.default_factory is dataclasses.MISSING


def test_defaults():
    c = config.load()
    assert c.network.addresses == ("127.0.0.1", "::1")
    assert c.api.addresses == c.network.addresses == c.network.advertised_addresses
    assert c.pacing.start_rate == 20_000_000
    assert c.node.name
    assert [key.secret for key in c.api.token_keys] == [EXAMPLE_KEY]


def test_file_and_overrides(file):
    path = file("[network]\nport = 443\n[rooms]\nmax_active = 7\n")
    c = config.load(path, {"network.port": 8443, "network.addresses": ("192.0.2.1",)})
    assert (c.network.port, c.rooms.max_active) == (8443, 7)
    assert c.network.addresses == c.api.addresses == ("192.0.2.1",)
    assert config.load().network.port == 4433


def test_all_faults_at_once_with_the_nearest_names(file):
    path = file(
        """
        top = 1
        log = "info"
        [network]
        prot = 443
        addresses = ["0.0.0.0"]
        max_active = 9
        [romms]
        max_active = 9
        [dataplane]
        workers = true
        frames = 5000
        """
    )
    assert faults_of(path, {"pacing.start_rat": 1}) == [
        f"{path}: top: no such key",
        f"{path}: log: must be a section: [log]",
        f"{path}: network.prot: no such key; did you mean network.port?",
        f"{path}: network.addresses is ['0.0.0.0']; it must be "
        "a list of 1 to 8 IP addresses (no wildcards)",
        f"{path}: network.max_active: no such key; did you mean rooms.max_active?",
        f"{path}: [romms]: no such section; did you mean rooms?",
        f"{path}: dataplane.workers is True; it must be a whole number from 1 to 16",
        f"{path}: dataplane.frames is 5000; it must be a power of two from 1,024 to 1,048,576",
        "command line: pacing.start_rat: no such key; did you mean pacing.start_rate?",
    ]


BAD_VALUES = [
    ("node.run_dir", "relative"),
    ("node.name", "x" * 64),
    ("node.name", "line\nbreak"),
    ("network.addresses", []),
    ("network.addresses", ["127.0.0.1", "127.0.0.1"]),
    ("network.addresses", ["localhost"]),
    ("network.addresses", ["ff02::1"]),
    ("network.addresses", "127.0.0.1"),
    ("network.addresses", ["127.0.0.1", 1]),
    ("network.port", 0),
    ("network.port", 65536),
    ("network.port", "443"),
    ("network.port", 443.0),
    ("network.interfaces", ["a-name-that-is-too-long"]),
    ("network.numa_nodes", [-1]),
    ("network.path", "fast"),
    ("network.path", ["udp"]),
    ("api.token_keys", []),
    ("api.token_keys", [{"kid": "a", "secret": "short"}]),
    ("api.token_keys", [{"kid": "a"}]),
    ("api.token_keys", [{"kid": "a", "secret": "s" * 32, "alg": "none"}]),
    ("api.token_keys", [{"kid": "a", "secret": "s" * 32}] * 2),
    ("api.token_keys", ["s" * 32]),
    ("api.cors_origins", ["app.example.com"]),
    ("dataplane.cpus", [True]),
    ("dataplane.cpus", [-1]),
    ("dataplane.busy_poll", 1),
    ("dataplane.crypto", "aes"),
    ("guard.flow_burst_bytes", 262_143),
    ("metrics.path", "metrics"),
    ("log.level", "INFO"),
]


@pytest.mark.parametrize(("key", "value"), BAD_VALUES)
def test_bad_value_is_named(key, value):
    (fault,) = faults_of(overrides={key: value})
    assert fault.startswith(f"command line: {key}")
    assert "; it must be " in fault


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        ({"network.path": "xdp"}, "network.interfaces is empty"),
        ({"network.interfaces": ["a", "b"], "network.numa_nodes": [0]}, "one for each, or none"),
        ({"network.path": "xdp-native"}, "network.interfaces is empty"),
        ({"api.cert_file": "/x.pem"}, "give both, or neither"),
        ({"dataplane.cpus": [1], "dataplane.workers": 2}, "1 processors for 2 workers"),
    ],
)
def test_keys_that_do_not_fit_together(overrides, part):
    (fault,) = faults_of(overrides=overrides)
    assert part in fault


def test_secrets_are_not_shown(file):
    secret = "swordfish" * 5
    path = file(f'[api]\ntoken_keys = [{{ kid = "", secret = "{secret}" }}]\n')
    assert secret not in "".join(faults_of(path))
    path = file(f'[api]\ntoken_keys = [{{ kid = "a", secret = "{secret}" }}]\n')
    c = config.load(path)
    assert secret not in repr(c)
    assert c.api.token_keys[0].secret == secret


@pytest.mark.parametrize(
    "text",
    ["[network", "a = 1\na = 2", "x = " + "[" * 5000, "\ud800".encode("utf-8", "surrogatepass")],
)
def test_broken_files_are_one_clear_fault(tmp_path, text):
    path = tmp_path / "broken.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    (fault,) = faults_of(path)
    assert fault.startswith(f"{path}: not valid TOML: ")


def test_unreadable_files(tmp_path):
    (fault,) = faults_of(tmp_path / "missing.toml")
    assert "cannot be read: No such file" in fault
    (fault,) = faults_of(tmp_path)
    assert "cannot be read: Is a directory" in fault
    large = tmp_path / "large.toml"
    large.write_text("#" * (config.FILE_MAX + 1))
    (fault,) = faults_of(large)
    assert "larger than" in fault


def test_directories_fall_back_without_root(monkeypatch):
    monkeypatch.setattr(configdirs, "_writable", lambda path: False)
    c = config.load(environ={"XDG_RUNTIME_DIR": "/run/user/7", "HOME": "/home/u"}, euid=7)
    assert c.node.run_dir == "/run/user/7/vcfwd"
    assert c.network.bpf_pin_dir == "/run/user/7/vcfwd/bpf"
    assert c.node.state_dir == "/home/u/.local/state/vcfwd"
    assert len(c.notes) == 2 and "/run/vcfwd is not writable" in c.notes[0]
    bare = config.load(environ={}, euid=7)
    assert (bare.node.run_dir, bare.node.state_dir) == ("/tmp/vcfwd-7", "/tmp/vcfwd-7/state")
    given_own = config.load(None, {"node.run_dir": "/run/mine"}, environ={}, euid=7)
    assert given_own.node.run_dir == "/run/mine"
    assert config.load(environ={}, euid=0).notes == ()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
keys = [f"{n}.{f.name}" for n, kind in config.SECTIONS.items() for f in dataclasses.fields(kind)]


@given(st.dictionaries(st.sampled_from(keys) | st.text(), anything, max_size=4))
def test_any_value_gives_a_config_or_faults(overrides):
    try:
        config.load(None, overrides)
    except ConfigError as error:
        assert error.faults


def test_secrets_that_everybody_can_read_are_noted(file):
    path = file(f'[api]\ntoken_keys = [{{ kid = "a", secret = "{"s" * 32}" }}]\n')
    path.chmod(0o644)
    (note,) = config.load(path, euid=0).notes
    assert f"chmod 600 {path}" in note
    path.chmod(0o600)
    assert config.load(path, euid=0).notes == ()


@given(
    st.text() | st.lists(st.sampled_from(["[", "]", "=", "{", '"', "a", "\n", "."])).map("".join)
)
def test_any_text_is_a_config_or_faults(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(text.encode())
    try:
        config.load(path)
    except ConfigError as error:
        assert error.faults
