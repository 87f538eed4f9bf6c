"""SRTP of one leg by libsrtp (pylibsrtp), with the keys that the node gave in its media offer."""

from __future__ import annotations

import base64

import pylibsrtp

from forwarder.rtp.suites import Suite
from forwarder.signaling.messages import MediaOffer

REPLAY_WINDOW = 1024  # packets
_PROFILES = {
    Suite.GCM: pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
    Suite.SHA1: pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
}


def _session(suite: Suite, key: str, direction: int) -> pylibsrtp.Session:
    raw = base64.b64decode(key, validate=True)
    wanted = suite.key_size + suite.salt_size
    if len(raw) != wanted:
        raise ValueError(f"the media offer has {len(raw)} bytes of key for {suite}, not {wanted}")
    policy = pylibsrtp.Policy(key=raw, ssrc_type=direction, srtp_profile=_PROFILES[suite])
    policy.window_size = REPLAY_WINDOW
    return pylibsrtp.Session(policy)


class Srtp:
    """Both directions.  The open_* calls return None for a packet that does not verify, and
    count it by the reason that libsrtp gives."""

    def __init__(self, offer: MediaOffer) -> None:
        self._out = _session(offer.suite, offer.send_key, pylibsrtp.Policy.SSRC_ANY_OUTBOUND)
        self._in = _session(offer.suite, offer.receive_key, pylibsrtp.Policy.SSRC_ANY_INBOUND)
        self.failures: dict[str, int] = {}

    def seal_rtp(self, packet: bytes) -> bytes:
        sealed: bytes = self._out.protect(packet)
        return sealed

    def seal_rtcp(self, packet: bytes) -> bytes:
        sealed: bytes = self._out.protect_rtcp(packet)
        return sealed

    def open_rtp(self, packet: bytes) -> bytes | None:
        try:
            clear: bytes = self._in.unprotect(packet)
        except (pylibsrtp.Error, TypeError, ValueError) as error:
            self._count(error)
            return None
        return clear

    def open_rtcp(self, packet: bytes) -> bytes | None:
        try:
            clear: bytes = self._in.unprotect_rtcp(packet)
        except (pylibsrtp.Error, TypeError, ValueError) as error:
            self._count(error)
            return None
        return clear

    def _count(self, error: Exception) -> None:
        reason = str(error)
        self.failures[reason] = self.failures.get(reason, 0) + 1
