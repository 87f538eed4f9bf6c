"""SRTP keys of the rig's legs: derived from names, so that every process can have them.

They protect nothing but test patterns.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

from forwarder.table import Suite

SUITES = {"gcm": Suite.AEAD_AES_128_GCM, "sha1": Suite.AES_CM_128_HMAC_SHA1_80, "none": Suite.NONE}
TAGS = {"gcm": 16, "sha1": 10, "none": 0}
"""Bytes by which sealing makes an RTP packet longer."""


def pair(suite: str, leg: int, direction: str) -> tuple[bytes, bytes]:
    """Master key (16 bytes) and salt (12, sha1: 14) of a leg; direction "rx" is peer to node."""
    raw = blake2b(f"{direction} {leg}".encode(), digest_size=32).digest()
    return raw[:16], raw[16 : 16 + (14 if suite == "sha1" else 12)]


def generator_file(path: Path, suite: str, legs: Iterable[int]) -> Path:
    """What the generator seals its flows with: flow f is the f-th leg."""
    pairs = (pair(suite, leg, "rx") for leg in legs)
    path.write_text("".join(f"{key.hex()} {salt.hex()}\n" for key, salt in pairs))
    return path


def receiver_file(path: Path, suite: str, ports: Iterable[tuple[int, int]]) -> Path:
    """What the receiver opens samples with: (port, leg)."""
    lines = []
    for port, leg in ports:
        key, salt = pair(suite, leg, "tx")
        lines.append(f"{port} {suite} {key.hex()} {salt.hex()}\n")
    path.write_text("".join(lines))
    return path
