"""ICE-lite: address validation, nomination, consent."""

from forwarder.ice.lite import IceLite, TuplesChanged

__all__ = ["IceLite", "TuplesChanged"]
