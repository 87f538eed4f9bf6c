"""The node's certificate: made, kept, renewed, and checked."""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from forwarder.clock import ManualClock
from forwarder.errors import ConfigError
from forwarder.signaling.certs import (
    CERT_NAME,
    DTLS_DIR,
    KEY_NAME,
    configured,
    development,
    dtls,
)

DAY = 24 * 3600.0
NAMES = ["127.0.0.1", "::1", "node.example"]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_what_browsers_ask_of_a_hashed_certificate(tmp_path: Path, clock: ManualClock) -> None:
    made = development(tmp_path, NAMES, clock=clock)
    own = made.chain[0]
    assert own.version is x509.Version.v3
    key = own.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    validity = own.not_valid_after_utc - own.not_valid_before_utc
    assert validity == dt.timedelta(days=13, hours=23)
    names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "node.example"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("127.0.0.1"),
        ipaddress.ip_address("::1"),
    ]
    der = ssl.PEM_cert_to_DER_cert((tmp_path / CERT_NAME).read_text())
    assert made.sha256 == hashlib.sha256(der).digest()
    made.ssl_context()


def test_the_key_is_for_its_owner_only(tmp_path: Path, clock: ManualClock) -> None:
    development(tmp_path / "new" / "state", NAMES, clock=clock)
    mode = (tmp_path / "new" / "state" / KEY_NAME).stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    assert {path.name for path in (tmp_path / "new" / "state").iterdir()} == {CERT_NAME, KEY_NAME}


def test_kept_until_two_days_remain(tmp_path: Path, clock: ManualClock) -> None:
    first = development(tmp_path, NAMES, clock=clock).sha256
    clock.advance(11 * DAY)
    assert development(tmp_path, NAMES, clock=clock).sha256 == first
    clock.advance(1 * DAY)
    second = development(tmp_path, NAMES, clock=clock)
    assert second.sha256 != first
    assert second.expires_at > clock.wall() + 13 * DAY


def test_that_of_dtls_stays_for_years(tmp_path: Path, clock: ManualClock) -> None:
    """Answers to further offers of a call name the certificate of its handshake, also after the
    API's was renewed and the node was started anew."""
    first = dtls(tmp_path, clock=clock)
    key = first.chain[0].public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert stat.S_IMODE((tmp_path / DTLS_DIR / KEY_NAME).stat().st_mode) == 0o600
    api = development(tmp_path, NAMES, clock=clock)
    clock.advance(5 * 365 * DAY)
    assert development(tmp_path, NAMES, clock=clock).sha256 != api.sha256
    assert dtls(tmp_path, clock=clock).sha256 == first.sha256


def test_made_anew_when_it_does_not_fit(tmp_path: Path, clock: ManualClock) -> None:
    def now(names: list[str] = NAMES) -> bytes:
        return development(tmp_path, names, clock=clock).sha256

    first = now()
    assert now(NAMES[:1]) == first
    second = now([*NAMES, "10.0.0.1"])
    assert second != first
    (tmp_path / KEY_NAME).chmod(0o640)
    third = now()
    assert third != second
    (tmp_path / CERT_NAME).write_bytes(b"rubbish")
    fourth = now()
    assert fourth != third
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (tmp_path / KEY_NAME).write_bytes(other)
    fifth = now()
    assert fifth != fourth
    clock.advance(-2 * DAY)  # the clock was wrong when it was made
    assert now() != fifth


def test_a_directory_that_cannot_be_written(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot keep the development certificate"):
        development(tmp_path / "file", NAMES, clock=clock)


def test_configured_files(tmp_path: Path, clock: ManualClock) -> None:
    made = development(tmp_path, NAMES, clock=clock)
    found = configured(made.cert_file, made.key_file, clock=clock)
    assert found.sha256 == made.sha256
    assert not found.self_signed
    found.ssl_context()


def test_all_faults_of_configured_files_at_once(tmp_path: Path, clock: ManualClock) -> None:
    made = development(tmp_path, NAMES, clock=clock)
    other = development(tmp_path / "other", NAMES, clock=clock)

    def faults(cert: Path, key: Path) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            configured(cert, key, clock=clock)
        return caught.value.faults

    missing = tmp_path / "missing.pem"
    both = faults(missing, missing)
    assert len(both) == 2
    assert all("cannot be read: No such file" in fault for fault in both)
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_bytes(b"\x00\xffrubbish")
    both = faults(rubbish, rubbish)
    assert "no PEM certificate" in both[0]
    assert "no unencrypted ECDSA or RSA key" in both[1]
    assert "is not the key of" in faults(made.cert_file, other.key_file)[0]
    clock.advance(14 * DAY)
    assert "expired at" in faults(made.cert_file, made.key_file)[0]
    clock.advance(-30 * DAY)
    assert "check the clock" in faults(made.cert_file, made.key_file)[0]


def test_an_encrypted_key_is_named(tmp_path: Path, clock: ManualClock) -> None:
    made = development(tmp_path, NAMES, clock=clock)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        made.private_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    with pytest.raises(ConfigError, match="no unencrypted"):
        configured(made.cert_file, locked, clock=clock)
