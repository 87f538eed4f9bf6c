"""DTLS-SRTP (RFC 5763, RFC 5764), server side, sans-IO: datagrams in, datagrams and keys out.

Rule 1: the node is always the server, so it picks the suite: AEAD_AES_128_GCM before
        AES_CM_128_HMAC_SHA1_80.
Rule 2: `expect` costs a record; OpenSSL state is made by the first ClientHello, which the caller
        lets through only from a 5-tuple that an authenticated STUN check validated.
Rule 3: keys come out only when the peer's certificate has the fingerprint of its offer, and
        together with the last flight: the caller sends that flight when the keys are in force.
Rule 4: half-open handshakes are bounded in number, time and bytes: those received, and those that
        messages claim to have.  No room has more than its share of them, so that who may join one
        room cannot keep everybody out of all others.  A finished one is kept for LINGER_S to
        answer a client that did not get the last flight, then freed.  Of that one the keys of its
        alerts are left (closing.py), so that its close_notify is heard.

`now` decides about deadlines; OpenSSL's own clock about retransmissions (1 s, doubling; it cannot
be injected), which happen when `tick` is called.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL

from forwarder.ice.closing import Closer
from forwarder.ids import ParticipantId, RoomId
from forwarder.rtp.suites import Suite

HALF_OPEN_MAX = 512  # ice.max_half_open, unless the configuration says otherwise
HALF_OPEN_SHARE = 0.75  # of them, rounded up, those of one room at most
DEADLINE_S = 10.0  # from the offer to the keys: four tries by timers of RFC 6347 (1 s, doubling)
LINGER_S = 20.0  # so long a retransmitted last flight of the client is answered
MTU = 1200  # bytes of a DTLS datagram that leaves
HANDSHAKE_BYTES_MAX = 64 * 1024  # received for one handshake
CLAIMED_BYTES_MAX = 16 * 1024  # of a client's handshake messages, as their headers tell it
MESSAGES_MAX = 16  # of them; a handshake takes five
SEALED_MAX, SEALED_BYTES_MAX = 8, 48  # records with its Finished, before and after; bytes of one
RECORD_HEAD = 13  # RFC 6347 section 4.1
MESSAGE_HEAD = 12  # RFC 6347 section 4.2.2
RECORD_MAX = 2**14  # bytes of a record's content
HANDSHAKE, CLIENT_HELLO = 22, 1
DTLS_1_2 = 0xFEFD
LABEL = b"EXTRACTOR-dtls_srtp"  # RFC 5764 section 4.2
CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES256-GCM-SHA384"
)
PROFILES = {  # OpenSSL's names
    Suite.GCM: b"SRTP_AEAD_AES_128_GCM",
    Suite.SHA1: b"SRTP_AES128_CM_SHA1_80",
}
SUITES = (Suite.GCM, Suite.SHA1)
HASHES = {"sha-256": "sha256", "sha-384": "sha384", "sha-512": "sha512"}  # OpenSSL's names


@dataclass(frozen=True)
class SrtpKeys:
    """What a handshake gives; named from the node's side: `rx` is what the client sends with."""

    suite: Suite
    rx_key: bytes = field(repr=False)
    rx_salt: bytes = field(repr=False)
    tx_key: bytes = field(repr=False)
    tx_salt: bytes = field(repr=False)


@dataclass(frozen=True)
class Output:
    """Datagrams to send to where the last one came from; with `keys`, only once those are in
    force."""

    datagrams: tuple[bytes, ...] = ()
    keys: SrtpKeys | None = None
    ended: bool = False
    """The client says that it is gone."""


NOTHING = Output()


class Identity:
    """The node's certificate with the one OpenSSL context of this process."""

    def __init__(
        self,
        certificate: x509.Certificate,
        private_key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
        suites: tuple[Suite, ...] = SUITES,
    ) -> None:
        digest = certificate.fingerprint(hashes.SHA256())
        self.fingerprint = digest.hex(":").upper()
        context = SSL.Context(SSL.DTLS_SERVER_METHOD)
        context.set_options(SSL.OP_NO_QUERY_MTU | SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_min_proto_version(DTLS_1_2)
        # Whoever it is: it must only be the one of the offer, which is checked by fingerprint.
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
        context.set_cipher_list(CIPHERS)
        context.set_tlsext_use_srtp(b":".join(PROFILES[suite] for suite in suites))
        context.use_certificate(certificate)
        context.use_privatekey(private_key)
        self.context = context


class Rejected(Exception):
    """A handshake failed; the text is the name of the counter."""


class Endpoint:
    """One handshake with one client."""

    def __init__(self, identity: Identity, algorithm: str, fingerprint: str) -> None:
        self._algorithm, self._fingerprint = algorithm, fingerprint
        self._connection = SSL.Connection(identity.context)
        self._connection.set_accept_state()
        self._connection.set_ciphertext_mtu(MTU)
        self._received = self._sealed = 0
        self._claimed: dict[int, int] = {}
        """Bytes of each handshake message, by its number."""
        self.done = False

    def receive(self, data: bytes) -> Output:
        """Raises Rejected; the endpoint is of no use then."""
        if self.done:
            if not self._modest(data):
                return NOTHING
        else:
            self._received += len(data)
            if self._received > HANDSHAKE_BYTES_MAX or not self._modest(data):
                raise Rejected("too_many_bytes")
        self._connection.bio_write(data)
        try:
            # Reading is what makes OpenSSL answer a repeated Finished (RFC 6347 4.2.4).  What else
            # the client sends is read until nothing is left of it, so that nothing piles up.
            while self.done:
                self._connection.recv(RECORD_MAX)
            self._connection.do_handshake()
        except SSL.WantReadError:
            return Output(self._outgoing())
        except SSL.Error:
            if self.done:
                return NOTHING  # an alert; one that ends it is heard by its closer
            raise Rejected("handshake_failed") from None
        keys = self._keys()
        self.done, self._sealed = True, 0
        return Output(self._outgoing(), keys)

    def _modest(self, data: bytes) -> bool:
        """At the first byte of a message OpenSSL takes memory for all of it, up to 100 KB, and does
        so for ten of them ahead of their turn: few bytes can make it hold a megabyte.  What a
        sealed record holds cannot be seen, so there may be few of those."""
        for epoch, kind, body in records(data):
            if kind != HANDSHAKE:
                continue
            if epoch != 0:
                self._sealed += 1
                if self._sealed > SEALED_MAX or len(body) > SEALED_BYTES_MAX:
                    return False
            for number, size in messages(body) if epoch == 0 else ():
                self._claimed[number] = max(size, self._claimed.get(number, 0))
        claimed = sum(self._claimed.values())
        return claimed <= CLAIMED_BYTES_MAX and len(self._claimed) <= MESSAGES_MAX

    def closer(self) -> Closer:
        """What hears the client's end, once `done`."""
        return Closer(self._connection)

    def retransmit(self) -> tuple[bytes, ...]:
        """What is due by OpenSSL's timer.  Raises Rejected after too many times."""
        if self.done or self._connection.DTLSv1_get_timeout() is None:
            return ()
        try:
            self._connection.DTLSv1_handle_timeout()
        except SSL.Error:
            raise Rejected("timed_out") from None
        return self._outgoing()

    def _keys(self) -> SrtpKeys:
        certificate = self._connection.get_peer_certificate()
        algorithm = HASHES.get(self._algorithm)
        if certificate is None or algorithm is None:
            raise Rejected("no_certificate")
        # By OpenSSL: what it took for a certificate may be none to a parser that is more strict.
        if certificate.digest(algorithm).decode() != self._fingerprint.upper():
            raise Rejected("wrong_fingerprint")
        profile = self._connection.get_selected_srtp_profile()
        suite = next((s for s, name in PROFILES.items() if name == profile), None)
        if suite is None:
            raise Rejected("no_srtp_suite")
        key, salt = suite.key_size, suite.salt_size
        raw = self._connection.export_keying_material(LABEL, 2 * (key + salt))
        salts = raw[2 * key :]
        return SrtpKeys(suite, raw[:key], salts[:salt], raw[key : 2 * key], salts[salt:])

    def _outgoing(self) -> tuple[bytes, ...]:
        try:
            raw = self._connection.bio_read(HANDSHAKE_BYTES_MAX)
        except SSL.WantReadError:
            return ()
        return pack(raw)


def pack(raw: bytes) -> tuple[bytes, ...]:
    """Records as they came out of OpenSSL, in datagrams of at most MTU bytes."""
    datagrams: list[bytes] = []
    at = 0
    while at + RECORD_HEAD <= len(raw):
        size = RECORD_HEAD + int.from_bytes(raw[at + 11 : at + 13], "big")
        record = raw[at : at + size]
        if datagrams and len(datagrams[-1]) + len(record) <= MTU:
            datagrams[-1] += record
        else:
            datagrams.append(record)
        at += size
    return tuple(datagrams)


def records(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Epoch, type and content of each record of a datagram (RFC 6347 section 4.1)."""
    at = 0
    while at + RECORD_HEAD <= len(data):
        size = int.from_bytes(data[at + 11 : at + 13], "big")
        body = data[at + RECORD_HEAD : at + RECORD_HEAD + size]
        yield int.from_bytes(data[at + 3 : at + 5], "big"), data[at], body
        at += RECORD_HEAD + size


def messages(body: bytes) -> Iterator[tuple[int, int]]:
    """Number and whole length of each message of which a clear handshake record has a fragment."""
    at = 0
    while at + MESSAGE_HEAD <= len(body):
        size, number = body[at + 1 : at + 4], body[at + 4 : at + 6]
        yield int.from_bytes(number, "big"), int.from_bytes(size, "big")
        at += MESSAGE_HEAD + int.from_bytes(body[at + 9 : at + 12], "big")


def is_client_hello(data: bytes) -> bool:
    """A datagram that begins with a (fragment of a) ClientHello."""
    return len(data) > RECORD_HEAD and data[0] == HANDSHAKE and data[RECORD_HEAD] == CLIENT_HELLO


@dataclass
class _Expected:
    room: RoomId
    algorithm: str
    fingerprint: str
    until: float
    endpoint: Endpoint | None = None
    failed: bool = False


class DtlsServer:
    """The handshakes of all legs, by participant."""

    def __init__(self, identity: Identity, most: int = HALF_OPEN_MAX) -> None:
        """`most`: half-open handshakes at once."""
        self._identity = identity
        self.most = most
        self._expected: dict[ParticipantId, _Expected] = {}
        self._of_room: Counter[RoomId] = Counter()
        """How many of the expected each room has, where it has any."""
        self._finished: dict[ParticipantId, tuple[float, Endpoint]] = {}
        self._closers: dict[ParticipantId, Closer] = {}
        self.counters: Counter[str] = Counter()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the node's certificate, for answers."""
        return self._identity.fingerprint

    @property
    def half_open(self) -> int:
        return len(self._expected)

    @property
    def busy(self) -> bool:
        """Whether `tick` has anything to look after."""
        return bool(self._expected or self._finished)

    @property
    def full(self) -> bool:
        """No further handshake can be expected now; try again after DEADLINE_S."""
        return len(self._expected) >= self.most

    @property
    def share(self) -> int:
        """The most of one room; of fewer than four places it is all."""
        return math.ceil(self.most * HALF_OPEN_SHARE)

    def room_full(self, room: RoomId) -> bool:
        """No further one of this room can be expected now, whatever the others have."""
        return self._of_room[room] >= self.share

    def expect(
        self, who: ParticipantId, room: RoomId, algorithm: str, fingerprint: str, now: float
    ) -> None:
        """An offer was answered; the caller has looked at `full` and `room_full`."""
        self._expect_no_more(who)
        self._expected[who] = _Expected(room, algorithm, fingerprint, now + DEADLINE_S)
        self._of_room[room] += 1

    def _expect_no_more(self, who: ParticipantId) -> None:
        """Its place is free."""
        expected = self._expected.pop(who, None)
        if expected is not None:
            self._of_room[expected.room] -= 1
            if not self._of_room[expected.room]:
                del self._of_room[expected.room]

    def forget(self, who: ParticipantId) -> None:
        self._expect_no_more(who)
        self._finished.pop(who, None)
        self._closers.pop(who, None)

    def close(self) -> None:
        """Frees all that OpenSSL holds for handshakes."""
        self._expected.clear()
        self._of_room.clear()
        self._finished.clear()
        self._closers.clear()

    def receive(self, who: ParticipantId, data: bytes, now: float) -> Output:
        """A datagram with a first byte of 20-63 from a validated 5-tuple of this participant."""
        closer = self._closers.get(who)
        if closer is not None and closer.ends(data):
            self.counters["closed"] += 1
            return Output(ended=True)
        if who in self._finished:
            return self._finished[who][1].receive(data)
        expected = self._expected.get(who)
        if expected is None:
            self.counters["late"] += 1
            return NOTHING
        if expected.failed:
            self.counters["after_failure"] += 1
            return NOTHING
        if expected.endpoint is None:
            if not is_client_hello(data):
                self.counters["no_client_hello"] += 1
                return NOTHING
            self.counters["started"] += 1
            expected.endpoint = Endpoint(self._identity, expected.algorithm, expected.fingerprint)
        try:
            output = expected.endpoint.receive(data)
        except Rejected as why:
            self._fail(expected, why)
            return NOTHING
        if output.keys is not None:
            self._expect_no_more(who)
            self._finished[who] = (now + LINGER_S, expected.endpoint)
            self._closers[who] = expected.endpoint.closer()
            self.counters["completed"] += 1
        return output

    def _fail(self, expected: _Expected, why: Rejected) -> None:
        """Its record stays until the deadline, so that trying again costs nothing."""
        self.counters[str(why)] += 1
        expected.endpoint, expected.failed = None, True

    def tick(self, now: float) -> tuple[list[tuple[ParticipantId, bytes]], list[ParticipantId]]:
        """Retransmissions that are due, and who did not finish in time (forgotten here); call it
        about ten times a second while `half_open`."""
        sends: list[tuple[ParticipantId, bytes]] = []
        late = [who for who, item in self._expected.items() if now >= item.until]
        for who in late:
            self._expect_no_more(who)
            self.counters["expired"] += 1
        for who, item in self._expected.items():
            if item.endpoint is not None:
                try:
                    flight = item.endpoint.retransmit()
                except Rejected as why:
                    self._fail(item, why)
                    continue
                self.counters["retransmitted"] += bool(flight)
                sends += [(who, data) for data in flight]
        for who in [w for w, (until, _) in self._finished.items() if now >= until]:
            del self._finished[who]
        return sends, late
