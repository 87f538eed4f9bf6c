"""Signaling: the join protocol, WebTransport and HTTP."""
