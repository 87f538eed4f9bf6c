"""DTLS-SRTP against OpenSSL's own client: suites, loss, order, fragments, wrong certificates."""

from __future__ import annotations

import contextlib
import gc
import random
import resource
import struct
import time
from collections import deque
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding
from dtls_kit import Peer, make_certificate
from OpenSSL import SSL, crypto

from forwarder.ice import dtls
from forwarder.ice.closing import _expand
from forwarder.ice.dtls import DtlsServer, Identity
from forwarder.ids import ParticipantId, RoomId
from forwarder.rtp.suites import Suite

WHO, ROOM = ParticipantId("p1"), RoomId("r")


@pytest.fixture(scope="module")
def identity() -> Identity:
    return Identity(*make_certificate("node"))


def handshake(server: DtlsServer, peer: Peer, chance: random.Random, loss: float = 0.0):
    """Until both are done; what is lost comes again by the timers.  Returns the node's keys."""
    to_server: deque[bytes] = deque(peer.step())
    to_client: deque[bytes] = deque()
    keys = None
    deadline = time.monotonic() + 30
    while not (peer.done and keys):
        assert time.monotonic() < deadline, dict(server.counters)
        if to_server and (not to_client or chance.random() < 0.5):
            if loss and len(to_server) > 1 and chance.random() < 0.3:
                to_server.rotate(1)
            data = to_server.popleft()
            if chance.random() >= loss:
                output = server.receive(WHO, data, 0.0)
                to_client.extend(output.datagrams)
                keys = output.keys or keys
        elif to_client:
            data = to_client.popleft()
            assert len(data) <= dtls.MTU
            if chance.random() >= loss:
                to_server.extend(peer.step(data))
        else:
            if not peer.done and peer.connection.DTLSv1_get_timeout() is not None:
                peer.connection.DTLSv1_handle_timeout()
                to_server.extend(peer.outgoing())
            to_client.extend(data for _, data in server.tick(0.0)[0])
            time.sleep(0.005)  # the timers are OpenSSL's
    return keys


@pytest.mark.parametrize(
    ("profiles", "suite"),
    [
        (b"SRTP_AES128_CM_SHA1_80:SRTP_AEAD_AES_128_GCM", Suite.GCM),
        (b"SRTP_AEAD_AES_128_GCM", Suite.GCM),
        (b"SRTP_AES128_CM_SHA1_80", Suite.SHA1),
    ],
)
def test_both_sides_get_the_same_keys(identity: Identity, profiles: bytes, suite: Suite) -> None:
    server, peer = DtlsServer(identity), Peer(profiles)
    server.expect(WHO, ROOM, "sha-256", peer.fingerprint, 0.0)
    keys = handshake(server, peer, random.Random(1))
    assert keys.suite is suite
    assert (keys.rx_key, keys.rx_salt, keys.tx_key, keys.tx_salt) == peer.keys(suite)
    assert server.half_open == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_loss_reordering_and_fragments(identity: Identity, seed: int) -> None:
    server, peer = DtlsServer(identity), Peer(b"SRTP_AEAD_AES_128_GCM", mtu=260)
    server.expect(WHO, ROOM, "sha-256", peer.fingerprint, 0.0)
    keys = handshake(server, peer, random.Random(seed), loss=0.15)
    assert (keys.rx_key, keys.rx_salt, keys.tx_key, keys.tx_salt) == peer.keys(Suite.GCM)


def test_a_fragmented_client_hello_makes_one_handshake(identity: Identity) -> None:
    server, peer = DtlsServer(identity), Peer(b"SRTP_AEAD_AES_128_GCM", mtu=260)
    server.expect(WHO, ROOM, "sha-256", peer.fingerprint, 0.0)
    first = peer.step()
    assert len(first) > 1
    for data in first[:-1]:
        assert server.receive(WHO, data, 0.0).datagrams == ()
    assert server.receive(WHO, first[-1], 0.0).datagrams


def run_until_keys(server: DtlsServer, peer: Peer):
    """The output that carries the keys, not given to the client; and the client's last flight."""
    flight = peer.step()
    while True:
        outputs = [server.receive(WHO, data, 0.0) for data in flight]
        if outputs[-1].keys:
            return outputs[-1], flight
        flight = [d for o in outputs for data in o.datagrams for d in peer.step(data)]
        assert flight


def test_a_lost_last_flight_is_sent_again_until_it_is_freed(identity: Identity) -> None:
    server, peer = DtlsServer(identity), Peer(b"SRTP_AEAD_AES_128_GCM")
    server.expect(WHO, ROOM, "sha-256", peer.fingerprint, 0.0)
    run_until_keys(server, peer)
    deadline = time.monotonic() + 10
    while not peer.done:
        assert time.monotonic() < deadline
        peer.connection.DTLSv1_handle_timeout()
        for data in peer.outgoing():
            for answer in server.receive(WHO, data, 1.0).datagrams:
                peer.step(answer)
        time.sleep(0.01)
    server.tick(dtls.LINGER_S)
    assert server.receive(WHO, b"\x16" * 40, dtls.LINGER_S).datagrams == ()
    assert server.counters["late"] == 1


@pytest.mark.parametrize("cipher", dtls.CIPHERS.split(b":"))
def test_a_client_that_closes_is_heard_when_openssl_has_forgotten_it(
    identity: Identity, cipher: bytes
) -> None:
    server, peer = DtlsServer(identity), Peer(b"SRTP_AEAD_AES_128_GCM", ciphers=cipher)
    server.expect(WHO, ROOM, "sha-256", peer.fingerprint, 0.0)
    handshake(server, peer, random.Random(1))
    assert peer.connection.get_cipher_name().encode() == cipher
    server.tick(dtls.LINGER_S)
    assert not server.busy
    with contextlib.suppress(SSL.Error):
        peer.connection.shutdown()
    (alert,) = peer.outgoing()
    for at in range(len(alert)):  # forged: in the head, the nonce, the alert or the tag
        forged = alert[:at] + bytes([alert[at] ^ 1]) + alert[at + 1 :]
        assert not server.receive(WHO, forged, 99.0).ended, at
        assert not server.receive(WHO, alert[:at], 99.0).ended, at
    assert server.receive(WHO, bytes(200) + alert, 99.0).ended is False
    assert server.receive(WHO, alert, 99.0).ended
    assert server.receive(WHO, b"\x16" + alert[1:] + alert, 99.0).ended  # behind another record
    assert server.counters["closed"] == 2
    server.forget(WHO)
    assert not server.receive(WHO, alert, 99.0).ended


def test_another_certificate_gets_neither_keys_nor_the_last_flight(identity: Identity) -> None:
    server, peer = DtlsServer(identity), Peer(b"SRTP_AEAD_AES_128_GCM")
    server.expect(WHO, ROOM, "sha-256", ":".join(["AA"] * 32), 0.0)
    flight = peer.step()
    for _ in range(6):
        outputs = [server.receive(WHO, data, 0.0) for data in flight]
        assert not any(o.keys for o in outputs)
        flight = [d for o in outputs for data in o.datagrams for d in peer.step(data)]
    assert not peer.done
    assert server.counters["wrong_fingerprint"] == 1
    assert server.receive(WHO, peer.step()[0] if flight else b"\x16" * 30, 0.0).datagrams == ()


def peer_of_version(version: int) -> Peer:
    """Its certificate claims to be of this version of X.509."""
    peer = Peer(b"SRTP_AEAD_AES_128_GCM")
    certificate, key = make_certificate("odd")
    der, usual = certificate.public_bytes(Encoding.DER), bytes.fromhex("a003020102")
    assert der.count(usual) == 1
    odd = der.replace(usual, usual[:-1] + bytes([version]))
    loaded = crypto.load_certificate(crypto.FILETYPE_ASN1, odd)
    peer.fingerprint = loaded.digest("sha256").decode()
    context = SSL.Context(SSL.DTLS_CLIENT_METHOD)
    context.set_options(SSL.OP_NO_QUERY_MTU)
    context.set_tlsext_use_srtp(b"SRTP_AEAD_AES_128_GCM")
    context.use_certificate(loaded)
    context.use_privatekey(key)
    peer.connection = SSL.Connection(context)
    peer.connection.set_connect_state()
    peer.connection.set_ciphertext_mtu(dtls.MTU)
    return peer


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL X509 objects is deprecated")
@pytest.mark.parametrize("honest", [True, False])
def test_a_certificate_that_only_openssl_takes_is_judged_by_its_fingerprint(
    identity: Identity, honest: bool
) -> None:
    """Python's parser raises for a sixth version of X.509: no remote may make it."""
    server, peer = DtlsServer(identity), peer_of_version(5)
    server.expect(WHO, ROOM, "sha-256", peer.fingerprint if honest else "AA", 0.0)
    flight = peer.step()
    for _ in range(6):
        outputs = [server.receive(WHO, data, 0.0) for data in flight]
        flight = [d for o in outputs for data in o.datagrams for d in peer.step(data)]
    assert server.counters["completed"] == honest
    assert server.counters["wrong_fingerprint"] == (not honest)


def test_what_a_client_sends_after_its_handshake_does_not_pile_up(identity: Identity) -> None:
    """Application data, many records in a datagram: read, and gone."""
    server, peer = DtlsServer(identity), Peer(b"SRTP_AEAD_AES_128_GCM")
    server.expect(WHO, ROOM, "sha-256", peer.fingerprint, 0.0)
    handshake(server, peer, random.Random(1))
    for _ in range(50):
        for _ in range(20):
            peer.connection.send(bytes(30))
        assert server.receive(WHO, b"".join(peer.outgoing()), 1.0) == dtls.NOTHING
    _, endpoint = server._finished[WHO]
    with pytest.raises(SSL.WantReadError):
        endpoint._connection.recv(100)


def test_no_state_before_a_client_hello_and_none_for_strangers(identity: Identity) -> None:
    server = DtlsServer(identity)
    assert server.receive(WHO, b"\x16\xfe\xfd" + bytes(60), 0.0).datagrams == ()
    assert server.counters["late"] == 1
    server.expect(WHO, ROOM, "sha-256", "AA", 0.0)
    for garbage in (
        b"\x14",
        b"\x16" * 13,
        b"\x17\xfe\xfd" + bytes(60),
        b"\x16\xfe\xfd" + bytes(60),
    ):
        assert server.receive(WHO, garbage, 0.0).datagrams == ()
    assert server.counters["no_client_hello"] == 4
    assert server.counters["started"] == 0


def test_garbage_after_a_client_hello_ends_in_a_counter(identity: Identity) -> None:
    chance = random.Random(5)
    for _ in range(200):
        server, peer = DtlsServer(identity), Peer(b"SRTP_AEAD_AES_128_GCM")
        server.expect(WHO, ROOM, "sha-256", peer.fingerprint, 0.0)
        hello = bytearray(peer.step()[0])
        for _ in range(chance.randrange(1, 6)):
            hello[chance.randrange(len(hello))] = chance.randrange(256)
        server.receive(WHO, bytes(hello[: chance.randrange(14, len(hello) + 1)]), 0.0)
        server.receive(WHO, chance.randbytes(chance.randrange(1, 1500)), 0.0)
        assert server.counters["completed"] == 0


def test_a_handshake_may_not_receive_for_ever(identity: Identity) -> None:
    server, peer = DtlsServer(identity), Peer(b"SRTP_AEAD_AES_128_GCM")
    server.expect(WHO, ROOM, "sha-256", peer.fingerprint, 0.0)
    hello = peer.step()[0]
    for _ in range(dtls.HANDSHAKE_BYTES_MAX // len(hello) + 2):
        server.receive(WHO, hello, 0.0)
    assert server.counters["too_many_bytes"] == 1


def record(epoch: int, number: int, body: bytes, version: int = 0xFEFD) -> bytes:
    return struct.pack("!BHHHIH", dtls.HANDSHAKE, version, epoch, 0, number, len(body)) + body


def fragment(kind: int, number: int, whole: int, at: int, data: bytes) -> bytes:
    """Of a handshake message (RFC 6347 section 4.2.2)."""
    sizes = (whole.to_bytes(3, "big"), at.to_bytes(3, "big"), len(data).to_bytes(3, "big"))
    return struct.pack("!B3sH3s3s", kind, sizes[0], number, *sizes[1:]) + data


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


CLAIMED = 100_000  # bytes, of a Certificate that OpenSSL takes memory for
CERTIFICATE = 11


@pytest.mark.parametrize("a_record", [1, 40])
def test_messages_that_claim_to_be_long_take_no_memory(identity: Identity, a_record: int) -> None:
    """7 KB of fragments, so many in a record behind one of a short message, of nine messages of
    100 KB, a byte on each page: a megabyte would be held for a handshake, half a gigabyte for all.
    """
    server = DtlsServer(identity)
    hello = Peer(b"SRTP_AEAD_AES_128_GCM", mtu=260).step()[0]
    greedy = [
        fragment(CERTIFICATE, number, CLAIMED, at, b"x")
        for number in range(2, 11)
        for at in range(0, CLAIMED, 4096)
    ]
    groups = [greedy[i : i + a_record] for i in range(0, len(greedy), a_record)]
    short = fragment(CERTIFICATE, 1, 100, 0, b"x")
    datagrams = [record(0, n, short + b"".join(group)) for n, group in enumerate(groups, 1)]
    gc.collect()
    before = resident_mib()
    for n in range(dtls.HALF_OPEN_MAX):
        who = ParticipantId(f"p{n}")
        server.expect(who, ROOM, "sha-256", "AA", 0.0)
        for data in (hello, *datagrams):
            server.receive(who, data, 0.0)
    assert resident_mib() - before < 100
    assert server.counters["too_many_bytes"] == dtls.HALF_OPEN_MAX
    server.close()


def test_sealed_records_are_few_and_short(identity: Identity) -> None:
    """What they hold cannot be seen before there are keys."""
    for size, most in ((dtls.SEALED_BYTES_MAX, dtls.SEALED_MAX), (dtls.SEALED_BYTES_MAX + 1, 0)):
        server, peer = DtlsServer(identity), Peer(b"SRTP_AEAD_AES_128_GCM")
        server.expect(WHO, ROOM, "sha-256", peer.fingerprint, 0.0)
        server.receive(WHO, peer.step()[0], 0.0)
        for n in range(most):
            server.receive(WHO, record(1, n, bytes(size)), 0.0)
            assert server.counters["too_many_bytes"] == 0
        server.receive(WHO, record(1, most, bytes(size)), 0.0)
        assert server.counters["too_many_bytes"] == 1


def sealed(peer: Peer, number: int, plain: bytes) -> bytes:
    """A handshake record under the client's key (RFC 5246 section 6.3, RFC 5288)."""
    connection = peer.connection
    seed = connection.server_random() + connection.client_random()
    block = _expand(connection.master_key(), b"key expansion" + seed, hashes.SHA256(), 40)
    head = struct.pack("!HHI", 1, 0, number) + b"\x16\xfe\xfd" + struct.pack("!H", len(plain))
    nonce = struct.pack("!Q", 1000 + number)
    body = AESGCM(block[:16]).encrypt(block[32:36] + nonce, plain, head)
    return record(1, number, nonce + body)


@pytest.mark.parametrize("after", [False, True])
def test_sealed_messages_that_claim_to_be_long_take_no_memory(
    identity: Identity, after: bool
) -> None:
    """The same by clients that have keys: instead of their Finished, or after it."""
    server = DtlsServer(identity)
    aes = b"ECDHE-ECDSA-AES128-GCM-SHA256"
    peer = Peer(b"SRTP_AEAD_AES_128_GCM", ciphers=aes)
    context = peer.connection.get_context()
    gc.collect()
    before = resident_mib()
    for n in range(dtls.HALF_OPEN_MAX):
        who = ParticipantId(f"p{n}")
        server.expect(who, ROOM, "sha-256", peer.fingerprint, 0.0)
        peer.connection, peer.done = SSL.Connection(context), False
        peer.connection.set_connect_state()
        peer.connection.set_ciphertext_mtu(dtls.MTU)
        flight = peer.step()
        while not any(data[3:5] == b"\0\1" for data in flight):
            outputs = [server.receive(who, data, 0.0) for data in flight]
            flight = [d for o in outputs for data in o.datagrams for d in peer.step(data)]
        for data in flight:
            if after or data[3:5] == b"\0\0":
                server.receive(who, data, 0.0)
        places = [(m, at) for m in range(5, 16) for at in range(0, CLAIMED, 8192)]
        for number, (message, at) in enumerate(places, 100):
            greedy = fragment(CERTIFICATE, message, CLAIMED, at, bytes(12))
            server.receive(who, sealed(peer, number, greedy), 0.0)
    assert server.counters["completed"] == after * dtls.HALF_OPEN_MAX
    assert server.counters["too_many_bytes"] == (not after) * dtls.HALF_OPEN_MAX
    assert resident_mib() - before < 100
    server.close()


def test_a_finished_that_comes_again_and_again_does_not_end_a_handshake(
    identity: Identity,
) -> None:
    """The last flight of a client without its first datagram, as often as a browser repeats it
    within the deadline (50 ms, doubling), then with it."""
    server, peer = DtlsServer(identity), Peer(b"SRTP_AEAD_AES_128_GCM")
    server.expect(WHO, ROOM, "sha-256", peer.fingerprint, 0.0)
    flight = peer.step()
    for _ in range(2):
        outputs = [server.receive(WHO, data, 0.0) for data in flight]
        answers = [data for output in outputs for data in output.datagrams]
        flight = [d for data in answers for d in peer.step(data)]
        if any(data[3:5] == b"\0\1" for data in flight):
            break
    (last,) = [data for data in flight if data[3:5] == b"\0\1"]
    for n in range(dtls.SEALED_MAX - 1):
        again = last[:5] + struct.pack("!HI", 0, 100 + n) + last[11:]
        assert server.receive(WHO, again, 0.0).keys is None
    found = [server.receive(WHO, data, 0.0).keys for data in flight]
    assert any(found), dict(server.counters)


def test_half_open_is_bounded_and_expires(identity: Identity) -> None:
    server = DtlsServer(identity)
    hello = Peer(b"SRTP_AEAD_AES_128_GCM").step()[0]
    for n in range(dtls.HALF_OPEN_MAX):
        assert not server.full
        server.expect(ParticipantId(f"p{n}"), ROOM, "sha-256", "AA", 0.0)
        assert server.receive(ParticipantId(f"p{n}"), hello, 0.0).datagrams
    assert server.full
    assert server.tick(dtls.DEADLINE_S - 0.1)[1] == []
    assert len(server.tick(dtls.DEADLINE_S)[1]) == dtls.HALF_OPEN_MAX
    assert (server.half_open, server.full) == (0, False)
    gc.collect()
    assert not [o for o in gc.get_objects() if isinstance(o, dtls.Endpoint)]
