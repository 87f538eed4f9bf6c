"""The node's certificate: configured files, or a short-lived one of its own for development.

Browsers take a certificate by its hash (serverCertificateHashes) only if it is ECDSA P-256 and
valid for at most 14 days, so the own one is valid for 13 days and 23 hours, and is made anew when
less than 2 days remain.  It lies in the state directory, so that its hash outlives a restart.
That of DTLS is known by its fingerprint alone, and may live: a call in which it was answered must
not be answered another one.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import os
import ssl
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from forwarder.clock import Clock
from forwarder.errors import ConfigError

VALIDITY: Final = dt.timedelta(days=13, hours=23)
DTLS_VALIDITY: Final = dt.timedelta(days=3650)
RENEW_BEFORE: Final = dt.timedelta(days=2)
BACKDATE: Final = dt.timedelta(hours=1)  # part of the validity: for clients whose clock is behind
CERT_NAME: Final = "dev-cert.pem"
KEY_NAME: Final = "dev-key.pem"
DTLS_DIR: Final = "dtls"  # below the state directory
FILE_MAX: Final = 256 * 1024  # bytes of a PEM file that are read

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Certificate:
    """A certificate chain with its key; the first of the chain is the node's own."""

    chain: tuple[x509.Certificate, ...]
    private_key: PrivateKey
    cert_file: Path
    key_file: Path
    self_signed: bool  # made by this node

    @property
    def sha256(self) -> bytes:
        """SHA-256 of the DER encoding: what serverCertificateHashes wants."""
        return hashlib.sha256(self.chain[0].public_bytes(serialization.Encoding.DER)).digest()

    @property
    def expires_at(self) -> float:
        """Wall-clock seconds."""
        return self.chain[0].not_valid_after_utc.timestamp()

    def ssl_context(self) -> ssl.SSLContext:
        """For TLS over TCP.  ConfigError if OpenSSL refuses the files."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.cert_file, self.key_file)
        except (OSError, ssl.SSLError) as exc:
            raise ConfigError(
                [f"{self.cert_file}, {self.key_file}: TLS refuses them: {exc}"]
            ) from exc
        return context


def configured(cert_file: Path, key_file: Path, *, clock: Clock) -> Certificate:
    """The operator's files, checked.  ConfigError with every fault found."""
    faults: list[str] = []
    chain: tuple[x509.Certificate, ...] = ()
    key: PrivateKey | None = None
    try:
        chain = tuple(x509.load_pem_x509_certificates(_read(cert_file)))
    except OSError as exc:
        faults.append(f"api.cert_file {cert_file}: cannot be read: {exc.strerror}")
    except ValueError:
        faults.append(f"api.cert_file {cert_file}: holds no PEM certificate")
    try:
        key = _load_key(key_file)
    except OSError as exc:
        faults.append(f"api.key_file {key_file}: cannot be read: {exc.strerror}")
    except (ValueError, TypeError, UnsupportedAlgorithm):
        faults.append(f"api.key_file {key_file}: holds no unencrypted ECDSA or RSA key in PEM")
    if chain:
        faults += _time_faults(cert_file, chain[0], clock.wall())
    if chain and key is not None and not _matches(chain[0], key):
        faults.append(f"api.key_file {key_file}: is not the key of {cert_file}")
    if faults or key is None:
        raise ConfigError(faults)
    return Certificate(chain, key, cert_file, key_file, self_signed=False)


def development(
    state_dir: Path, names: Sequence[str], *, clock: Clock, validity: dt.timedelta = VALIDITY
) -> Certificate:
    """The self-signed certificate in `state_dir`, made or renewed where needed.

    `names`: addresses and host names that it is to be valid for; `validity`: of one that is made.
    ConfigError if the directory cannot be written.
    """
    cert_file, key_file = state_dir / CERT_NAME, state_dir / KEY_NAME
    try:
        found = _load_development(cert_file, key_file)
        if found is not None and _fresh(found, names, clock.wall()):
            return found
        chain, key = _make(names, clock.wall(), validity)
        state_dir.mkdir(parents=True, exist_ok=True)
        _write(key_file, _key_pem(key), 0o600)
        _write(cert_file, chain.public_bytes(serialization.Encoding.PEM), 0o644)
    except OSError as exc:
        raise ConfigError(
            [f"{state_dir}: cannot keep the development certificate there: {exc}"]
        ) from exc
    return Certificate((chain,), key, cert_file, key_file, self_signed=True)


def dtls(state_dir: Path, *, clock: Clock) -> Certificate:
    """What browsers see in DTLS and know by its fingerprint: always the node's own, always ECDSA
    P-256, whatever the API's is."""
    return development(state_dir / DTLS_DIR, [], clock=clock, validity=DTLS_VALIDITY)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(FILE_MAX)


def _load_key(path: Path) -> PrivateKey:
    key = serialization.load_pem_private_key(_read(path), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ValueError("neither ECDSA nor RSA")
    return key


def _matches(certificate: x509.Certificate, key: PrivateKey) -> bool:
    der, spki = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return certificate.public_key().public_bytes(der, spki) == key.public_key().public_bytes(
        der, spki
    )


def _time_faults(path: Path, certificate: x509.Certificate, now: float) -> list[str]:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now >= end.timestamp():
        return [f"api.cert_file {path}: expired at {end:%Y-%m-%d %H:%M} UTC; renew it"]
    if now < start.timestamp():
        return [
            f"api.cert_file {path}: is valid from {start:%Y-%m-%d %H:%M} UTC on; check the clock"
        ]
    return []


def _load_development(cert_file: Path, key_file: Path) -> Certificate | None:
    """What is kept, or None where it is absent, broken, or readable by others."""
    try:
        if stat.S_IMODE(key_file.stat().st_mode) & 0o077:
            return None
        chain = tuple(x509.load_pem_x509_certificates(_read(cert_file)))
        key = _load_key(key_file)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    if not _matches(chain[0], key):
        return None
    return Certificate(chain, key, cert_file, key_file, self_signed=True)


def _fresh(certificate: Certificate, names: Sequence[str], now: float) -> bool:
    own = certificate.chain[0]
    if not own.not_valid_before_utc.timestamp() <= now:
        return False
    if certificate.expires_at - now < RENEW_BEFORE.total_seconds():
        return False
    try:
        kept = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return set(_general_names(names)) <= set(kept)


def _general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    general: list[x509.GeneralName] = []
    for name in dict.fromkeys(["localhost", *names]):
        try:
            general.append(x509.IPAddress(ipaddress.ip_address(name.partition("%")[0])))
        except ValueError:
            general.append(x509.DNSName(name))
    return general


def _make(
    names: Sequence[str], now: float, validity: dt.timedelta
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vcfwd development")])
    start = dt.datetime.fromtimestamp(int(now), dt.UTC) - BACKDATE
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + validity)
        .add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    """Replaces the file as a whole; never readable by more than `mode` says, not for a moment."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
