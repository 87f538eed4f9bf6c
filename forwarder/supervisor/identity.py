"""The certificates of a node: the one it serves with, and the one of its DTLS handshakes."""

from __future__ import annotations

from pathlib import Path

from forwarder.clock import Clock
from forwarder.config import Config
from forwarder.ice.dtls import Identity
from forwarder.signaling import certs


def certificate(config: Config, clock: Clock) -> certs.Certificate:
    """The configured one, else the development one, made anew when it is about to end."""
    if config.api.cert_file:
        return certs.configured(Path(config.api.cert_file), Path(config.api.key_file), clock=clock)
    state_dir = Path(config.node.state_dir)
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    names = dict.fromkeys([*config.network.addresses, *config.network.advertised_addresses])
    return certs.development(state_dir, ["localhost", *names], clock=clock)


def dtls(config: Config, clock: Clock) -> Identity:
    """Long-lived: its fingerprint is in the answers of calls that go on."""
    found = certs.dtls(Path(config.node.state_dir), clock=clock)
    return Identity(found.chain[0], found.private_key)
