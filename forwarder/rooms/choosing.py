"""Layers for real participants: what layers.py decides, carried out on subscriptions.

Law: only a change is marked.  A participant that never said anything of its way gets the highest
layer that is sent and wanted.
"""

from __future__ import annotations

from collections.abc import Collection

from forwarder.rooms.layers import AUDIO_BPS, PACE_CHANGE, PAUSED, Stream
from forwarder.rooms.room import Participant, Slot, Subscription, Track
from forwarder.rooms.state import State
from forwarder.rtp.codecs import Kind

INDEX_DIGITS = 2
"""Of a layer's index as text; longer ones name no layer."""


def wanted_layer(viewer: Participant, slot: Slot | None, track: Track) -> int:
    """The highest layer of a track that the viewer wants: what it said of the slot, or when it
    joined ("low", "high", a rid or an index)."""
    top = len(track.layers) - 1
    if slot is not None and slot.limit is not None:
        return min(slot.limit, top)
    asked = viewer.peer.layer if viewer.peer is not None else ""
    if not asked or asked == "high":
        return top
    for layer in track.layers:
        if layer.spec.rid == asked:
            return layer.index
    if asked == "low":
        return 0
    index = asked if asked.isascii() and asked.isdecimal() and len(asked) <= INDEX_DIGITS else ""
    return min(int(index), top) if index else top


def choose(state: State, viewer: Participant, fresh: Collection[Subscription] = ()) -> None:
    """The layers of everything that the viewer sees; `fresh`: what it was not sent until now."""
    shown = [
        s for s in viewer.subscriptions.values() if s.track.kind is Kind.VIDEO and not s.track.muted
    ]
    shown.sort(key=lambda s: s.slot.spec.pair if s.slot is not None else -1)
    streams = [_stream(viewer, s, s in fresh) for s in shown]
    ladder = viewer.ladder
    if ladder is None:
        chosen = [stream.rungs()[-1] for stream in streams]
    else:
        chosen = ladder.choose(streams, _audio_bps(viewer), state.now)
    for subscription, layer in zip(shown, chosen, strict=True):
        _set(state, subscription, layer)
    if ladder is None:
        return
    deadline = ladder.deadline()
    if deadline is None:
        state.ladders.pop(viewer.id, None)
    else:
        state.ladders[viewer.id] = deadline
    now_sent = [_stream(viewer, s, False) for s in shown]
    rate = ladder.pace(now_sent, state.limits.start_rate, state.now)
    have = viewer.rate_bps or state.limits.start_rate
    if abs((rate or state.limits.start_rate) - have) > PACE_CHANGE * have:
        viewer.rate_bps = rate
        state.touch_participant(viewer)


def _stream(viewer: Participant, subscription: Subscription, fresh: bool) -> Stream:
    track = subscription.track
    return Stream(
        tuple(layer.bitrate for layer in track.layers),
        wanted_layer(viewer, subscription.slot, track),
        PAUSED if fresh or subscription.paused else subscription.layer,
    )


def _audio_bps(viewer: Participant) -> int:
    found = 0
    for subscription in viewer.subscriptions.values():
        track = subscription.track
        if track.kind is Kind.AUDIO and not track.muted:
            rate = track.layers[subscription.layer].bitrate
            found += AUDIO_BPS if rate is None else rate
    return found


def _set(state: State, subscription: Subscription, layer: int) -> None:
    paused = layer == PAUSED
    if subscription.paused == paused and (paused or subscription.layer == layer):
        return
    subscription.paused = paused
    if not paused:
        subscription.layer = layer
    state.touch_subscription(subscription)
