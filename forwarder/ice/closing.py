"""A client's close_notify, understood without the OpenSSL object of its handshake.

A browser that closes its connection, or whose page is left, says so by an encrypted alert, maybe
hours after the handshake.  Law: 100 bytes a client are kept for it, not a connection of OpenSSL.
DTLS 1.2 with AEAD ciphers only (RFC 6347; RFC 5288 for GCM, RFC 7905 for ChaCha20).
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from OpenSSL import SSL

HEAD = 13  # of a record (RFC 6347 section 4.1)
ALERT, HANDSHAKE_EPOCH = 21, 1
FATAL, CLOSE_NOTIFY = 2, 0
RECORDS_MAX = 4  # of a datagram that are looked at
GCM_SALT, GCM_NONCE, TAG = 4, 8, 16
CHACHA_IV = 12
ALERT_SZ = 2


class Closer:
    """The keys by which a client's alerts are read; made when its handshake is done."""

    __slots__ = ("_aead", "_iv")

    def __init__(self, connection: SSL.Connection) -> None:
        """Raises ValueError for a cipher that was not offered by the node."""
        name = connection.get_cipher_name() or ""
        master = connection.master_key()
        seed = (connection.server_random() or b"") + (connection.client_random() or b"")
        if master is None or not ("GCM" in name or "CHACHA20" in name):
            raise ValueError(f"no keys can be told of the cipher {name!r}")
        digest = hashes.SHA384() if name.endswith("SHA384") else hashes.SHA256()
        key_sz = 16 if "AES128" in name else 32
        iv_sz = GCM_SALT if "GCM" in name else CHACHA_IV
        block = _expand(master, b"key expansion" + seed, digest, 2 * key_sz + iv_sz)
        self._iv = block[2 * key_sz :]
        key = block[:key_sz]
        self._aead = AESGCM(key) if iv_sz == GCM_SALT else ChaCha20Poly1305(key)

    def ends(self, data: bytes) -> bool:
        """Whether an authentic alert in the datagram ends the association."""
        at = 0
        for _ in range(RECORDS_MAX):
            if len(data) - at < HEAD:
                return False
            size = int.from_bytes(data[at + 11 : at + 13], "big")
            record = data[at : at + HEAD + size]
            if len(record) < HEAD + size:
                return False
            if record[0] == ALERT and int.from_bytes(record[3:5], "big") == HANDSHAKE_EPOCH:
                alert = self._open(record)
                if alert is not None and (alert[0] == FATAL or alert[1] == CLOSE_NOTIFY):
                    return True
            at += HEAD + size
        return False

    def _open(self, record: bytes) -> bytes | None:
        number, sealed = record[3:11], record[HEAD:]
        if len(self._iv) == GCM_SALT:
            nonce, sealed = self._iv + sealed[:GCM_NONCE], sealed[GCM_NONCE:]
        else:
            padded = bytes(CHACHA_IV - len(number)) + number
            nonce = bytes(a ^ b for a, b in zip(self._iv, padded, strict=True))
        if len(sealed) != ALERT_SZ + TAG:
            return None
        head = number + record[:3] + ALERT_SZ.to_bytes(2, "big")
        try:
            return self._aead.decrypt(nonce, sealed, head)
        except InvalidTag:
            return None


def _expand(secret: bytes, seed: bytes, digest: hashes.HashAlgorithm, size: int) -> bytes:
    """P_hash of RFC 5246 section 5."""

    def keyed(data: bytes) -> bytes:
        mac = hmac.HMAC(secret, digest)
        mac.update(data)
        return mac.finalize()

    found, a = b"", seed
    while len(found) < size:
        a = keyed(a)
        found += keyed(a + seed)
    return found[:size]
