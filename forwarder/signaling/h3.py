"""HTTP/3 and WebTransport over aioquic: our settings, capsules, answers.

Browsers disagree about which draft of WebTransport they speak, so all their settings are sent:
Chrome looks for draft 02, Safari for draft 13, and each ignores the others.  One session for a
connection, no more: a larger number would switch session flow control on, which Safari then
insists on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from forwarder.errors import CodedError, ErrorCode, Refused
from forwarder.signaling.certs import Certificate

JOIN_PATH: Final = "/v1/join"

ENABLE_WEBTRANSPORT: Final = 0x2B603742  # draft 02: Chrome
MAX_SESSIONS_DRAFT_07: Final = 0xC671706A
MAX_SESSIONS_DRAFT_13: Final = 0x14E9CD29  # Safari 26.4
WT_ENABLED: Final = 0x2C7CF000  # drafts 15 and 16
CLOSE_SESSION: Final = 0x2843  # capsule CLOSE_WEBTRANSPORT_SESSION
REASON_MAX: Final = 1024  # bytes of a reason in that capsule

MAX_DATAGRAM: Final = 1200  # bytes of a UDP payload that fits every path (RFC 9000 section 14)
MAX_STREAM_DATA: Final = 80 * 1024  # bytes in flight on a stream: one message and its header
MAX_DATA: Final = 160 * 1024  # bytes in flight on a connection: what a stranger can make us hold

Headers = list[tuple[bytes, bytes]]


class NoSuchPath(Refused):
    """404."""

    def __init__(self) -> None:
        super().__init__(ErrorCode.BAD_MESSAGE, f"WebTransport sessions are at {JOIN_PATH}")

    @property
    def status(self) -> int:
        return 404


class Http3(H3Connection):
    """H3Connection with the settings that Chrome, Safari and Firefox ask for."""

    def _get_local_settings(self) -> dict[int, int]:
        settings = super()._get_local_settings()
        settings[MAX_SESSIONS_DRAFT_07] = 1
        settings[MAX_SESSIONS_DRAFT_13] = 1
        settings[WT_ENABLED] = 1
        return settings


def quic_configuration(certificate: Certificate, *, idle_timeout_s: float) -> QuicConfiguration:
    """The server's side of every connection."""
    configuration = QuicConfiguration(
        is_client=False,
        alpn_protocols=list(H3_ALPN),
        idle_timeout=idle_timeout_s,
        max_data=MAX_DATA,
        max_stream_data=MAX_STREAM_DATA,
        max_datagram_size=MAX_DATAGRAM,
        # Announced because WebTransport requires it.  The node sends no DATAGRAM frame (aioquic
        # takes one that is too large and then never sends another), and drops those it is sent.
        max_datagram_frame_size=MAX_DATAGRAM,
    )
    configuration.certificate = certificate.chain[0]
    configuration.certificate_chain = list(certificate.chain[1:])
    configuration.private_key = certificate.private_key
    return configuration


def problem(error: CodedError) -> tuple[Headers, bytes]:
    """Headers and body of an error response."""
    body = json.dumps({"code": error.code.value, "message": str(error)}).encode()
    headers = [
        (b":status", str(error.status).encode()),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    return headers, body


def close_capsule(code: int, reason: str) -> bytes:
    """The capsule that ends a WebTransport session (draft-ietf-webtrans-http3 section 5)."""
    text = reason.encode()[:REASON_MAX].decode(errors="ignore").encode()  # whole characters
    payload = code.to_bytes(4, "big") + text
    return encode_uint_var(CLOSE_SESSION) + encode_uint_var(len(payload)) + payload


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    """The first value of a header, or nothing."""
    return next((value for key, value in headers if key == name), b"")


def stream_backlog(quic: QuicConnection, stream_id: int) -> int:
    """Bytes written on a stream that the peer has not acknowledged (aioquic tells nobody)."""
    stream = quic._streams.get(stream_id)
    if stream is None:
        return 0
    return int(stream.sender._buffer_stop - stream.sender._buffer_start)


def stream_writable(quic: QuicConnection, stream_id: int) -> bool:
    """Whether the peer still listens to the stream (it may have sent STOP_SENDING)."""
    stream = quic._streams.get(stream_id)
    return stream is not None and stream.sender._reset_error_code is None


def path_validated(quic: QuicConnection) -> bool:
    """Whether the peer has proved that it receives at its present address."""
    return bool(quic._network_paths and quic._network_paths[0].is_validated)
