"""Stateless reset (RFC 9000 section 10.3): a restarted node tells clients that it knows them not.

Without it a client learns of a restarted supervisor only when its idle timeout has passed; with
it, at its next packet, and it resumes at once.  The token of a connection id is made from the
node's private key, so that the next process makes the same one.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Any, Final

from aioquic.quic.connection import QuicConnection
from cryptography.hazmat.primitives import serialization

from forwarder.signaling.certs import Certificate

TOKEN_SIZE: Final = 16  # bytes
RESET_MIN: Final = 21  # bytes of a datagram that can pass for a short header packet
RESET_MAX: Final = 43  # bytes; more makes it no less recognisable
RESETS_PER_S: Final = 200.0  # datagrams a second: strangers can ask for them


class Resets:
    """Tokens for connection ids, and the datagrams that carry them."""

    def __init__(self, certificate: Certificate) -> None:
        private = certificate.private_key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self._key = hmac.digest(private, b"vcfwd stateless reset", "sha256")
        self._allowance = RESETS_PER_S
        self._refilled_at = 0.0

    def token(self, cid: bytes) -> bytes:
        """The reset token of a connection id."""
        return hmac.new(self._key, cid, hashlib.sha256).digest()[:TOKEN_SIZE]

    def datagram(self, cid: bytes, size: int, now: float) -> bytes | None:
        """The answer to a datagram of `size` bytes for an unknown id, None for no answer.

        Always shorter than what it answers, so that two nodes cannot keep each other busy.
        """
        length = min(size - 1, RESET_MAX)
        elapsed = max(0.0, now - self._refilled_at)
        self._refilled_at = now
        self._allowance = min(RESETS_PER_S, self._allowance + elapsed * RESETS_PER_S)
        if length < RESET_MIN or self._allowance < 1.0:
            return None
        self._allowance -= 1.0
        noise = bytearray(os.urandom(length - TOKEN_SIZE))
        noise[0] = 0x40 | noise[0] & 0x3F
        return bytes(noise) + self.token(cid)


class ResettableConnection(QuicConnection):
    """A server's connection whose reset tokens come from `resets` instead of from chance."""

    def __init__(self, *, resets: Resets, **options: Any) -> None:
        super().__init__(**options)
        self._resets = resets
        self._host_cids[0].stateless_reset_token = resets.token(self.host_cid)

    def _replenish_connection_ids(self) -> None:
        super()._replenish_connection_ids()
        for issued in self._host_cids:
            if not issued.was_sent:
                issued.stateless_reset_token = self._resets.token(issued.cid)
