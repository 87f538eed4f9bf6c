"""The order of a track's layers where its offer does not tell it: by what they measure.

An offer with rids such as 0, 1, 2 and no sizes may mean either order: browsers take the first for
the smallest, OBS for the best.  Law: names that are usual stand; else, when a layer that counts as
lower has sent clearly more than one above it for a while, the layers change their places.  What
each viewer is sent goes on; only which of them is the higher is known now.
"""

from __future__ import annotations

from itertools import pairwise

from forwarder.rooms.room import Track
from forwarder.rtp.rids import usual_order

CONTRARY = 1.3
"""A lower layer that sends so many times as much as a higher one."""
CONTRARY_MAX = 4
"""Measurements in a row after which it is believed."""
TRUSTED_BPS = 20_000
"""Below this a rate says nothing: a picture may stand still."""


def rank(track: Track) -> bool:
    """After a measurement of its layers.  True: they have another order now."""
    layers = track.layers
    if len(layers) < 2 or usual_order([layer.spec.rid for layer in layers]) is not None:
        return False
    rates = [layer.bitrate or 0 for layer in layers]
    if min(rates) < TRUSTED_BPS:
        return False  # one pauses, or is not measured: nothing can be compared
    pairs = pairwise(rates)
    track.contrary = track.contrary + 1 if any(a > CONTRARY * b for a, b in pairs) else 0
    if track.contrary < CONTRARY_MAX:
        return False
    track.contrary = 0
    shown = {route: s.source for route, s in track.subscriptions.items()}
    layers.sort(key=lambda layer: layer.bitrate or 0)
    for index, layer in enumerate(layers):
        layer.index = index
    for route, subscription in track.subscriptions.items():
        subscription.layer = track.layer_of(shown[route]).index
    return True
