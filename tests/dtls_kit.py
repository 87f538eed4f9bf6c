"""A DTLS-SRTP client on memory buffers: OpenSSL's own."""

from __future__ import annotations

import datetime as dt

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from forwarder.rtp.suites import Suite

LABEL = b"EXTRACTOR-dtls_srtp"


def make_certificate(who: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, who)])
    start = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    return built, key


class Peer:
    """A DTLS client on memory buffers."""

    def __init__(self, profiles: bytes, mtu: int = 1200, ciphers: bytes = b"") -> None:
        certificate, key = make_certificate("client")
        self.fingerprint = certificate.fingerprint(hashes.SHA256()).hex(":").upper()
        context = SSL.Context(SSL.DTLS_CLIENT_METHOD)
        context.set_options(SSL.OP_NO_QUERY_MTU)
        context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
        context.set_tlsext_use_srtp(profiles)
        if ciphers:
            context.set_cipher_list(ciphers)
        context.use_certificate(certificate)
        context.use_privatekey(key)
        self.connection = SSL.Connection(context)
        self.connection.set_connect_state()
        self.connection.set_tlsext_host_name(b"a" * 240)  # a ClientHello as long as a browser's
        self.connection.set_ciphertext_mtu(mtu)
        self.done = False

    def step(self, data: bytes = b"") -> list[bytes]:
        """Each record in a datagram of its own."""
        if data:
            self.connection.bio_write(data)
        try:
            if self.done:
                self.connection.recv(2000)
            else:
                self.connection.do_handshake()
                self.done = True
        except SSL.WantReadError:
            pass
        return self.outgoing()

    def timeout(self) -> float:
        """Seconds until the last flight is to be sent again."""
        left = self.connection.DTLSv1_get_timeout()
        return 1.0 if left is None else max(left, 0.01)

    def again(self) -> list[bytes]:
        """The last flight, where its time has come (RFC 6347 section 4.2.4)."""
        self.connection.DTLSv1_handle_timeout()
        return self.outgoing()

    def outgoing(self) -> list[bytes]:
        try:
            raw = self.connection.bio_read(65536)
        except SSL.WantReadError:
            return []
        found = []
        while raw:
            size = 13 + int.from_bytes(raw[11:13], "big")
            found.append(raw[:size])
            raw = raw[size:]
        return found

    def keys(self, suite: Suite) -> tuple[bytes, ...]:
        k, s = suite.key_size, suite.salt_size
        raw = self.connection.export_keying_material(LABEL, 2 * (k + s))
        return raw[:k], raw[2 * k : 2 * k + s], raw[k : 2 * k], raw[2 * k + s :]
