"""SRTP protection profiles: IANA names, DTLS-SRTP numbers, key sizes."""

from __future__ import annotations

from enum import StrEnum


class Suite(StrEnum):
    GCM = "AEAD_AES_128_GCM"  # RFC 7714
    SHA1 = "AES_CM_128_HMAC_SHA1_80"  # RFC 3711, RFC 5764

    @property
    def profile(self) -> int:
        """DTLS-SRTP protection profile number (RFC 5764 section 4.1.2, RFC 7714 section 14.2)."""
        return 0x0007 if self is Suite.GCM else 0x0001

    @property
    def key_size(self) -> int:
        """Bytes of the master key."""
        return 16

    @property
    def salt_size(self) -> int:
        """Bytes of the master salt."""
        return 12 if self is Suite.GCM else 14
