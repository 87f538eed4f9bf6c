"""Rooms as messages: what the join protocol and the HTTP API show of them.  Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

from forwarder.rooms import events
from forwarder.rooms.events import Event
from forwarder.rooms.room import (
    Participant,
    ParticipantView,
    RoomView,
    Slot,
    Subscription,
    Track,
    TrackSpec,
    TrackView,
    view_participant,
    view_track,
)
from forwarder.rooms.room import RoomDetail as RoomsDetail
from forwarder.signaling import messages as m
from forwarder.signaling.backend import RoomDetail, RoomInfo, SlotInfo


def participant_info(view: ParticipantView) -> m.ParticipantInfo:
    return m.ParticipantInfo(id=view.id, name=view.name, role=view.role)


def track_info(view: TrackView) -> m.TrackInfo:
    return m.TrackInfo(
        id=view.id,
        participant_id=view.participant_id,
        label=view.label,
        kind=view.kind,
        codec=view.codec,
        muted=view.muted,
    )


def track_spec(offer: m.TrackOffer) -> TrackSpec:
    return TrackSpec(
        label=offer.label,
        kind=offer.kind,
        codec=offer.codec,
        pt=offer.pt,
        clock_hz=offer.clock_hz,
        ssrc=offer.ssrc,
    )


def subscription_info(subscription: Subscription) -> m.SubscriptionInfo:
    spec = subscription.track.spec
    return m.SubscriptionInfo(
        track_id=subscription.track.id,
        participant_id=subscription.track.participant_id,
        kind=spec.kind,
        codec=spec.codec,
        ssrc=subscription.out_ssrc,
        pt=spec.pt,
        clock_hz=spec.clock_hz,
    )


def subscribed(subscriptions: Iterable[Subscription], re: int | None = None) -> m.Subscribed:
    return m.Subscribed(re=re, subscriptions=[subscription_info(s) for s in subscriptions])


def media_offer(participant: Participant, addresses: Sequence[tuple[str, int]]) -> m.MediaOffer:
    """What the client needs to send and receive: the only place where keys leave the node."""

    def encoded(key: bytes, salt: bytes) -> str:
        return base64.b64encode(key + salt[: participant.suite.salt_size]).decode()

    return m.MediaOffer(
        addresses=list(addresses),
        ufrag=participant.ufrag,
        password=participant.password,
        suite=participant.suite,
        send_key=encoded(participant.rx_key, participant.rx_salt),
        receive_key=encoded(participant.tx_key, participant.tx_salt),
        rtcp_ssrc=participant.rtcp_ssrc,
        cname=participant.cname,
    )


def slot_info(slot: Slot) -> m.SlotInfo:
    track = slot.subscription.track if slot.subscription is not None else slot.missed
    return m.SlotInfo(
        mid=slot.spec.mid,
        pair=slot.spec.pair,
        kind=slot.spec.kind,
        state=slot.state.value,
        track_id=track.id if track is not None else None,
        participant_id=track.participant_id if track is not None else None,
    )


def welcome(
    me: Participant,
    others: Iterable[Participant],
    tracks: Iterable[Track],
    media: m.MediaOffer | None,
    *,
    re: int,
    resumed: bool,
    answer: str | None = None,
    ice_servers: Sequence[m.IceServer] = (),
) -> m.Welcome:
    """`media` for a native client, `answer` for a browser that has just joined."""
    return m.Welcome(
        re=re,
        room_id=me.room_id,
        participant_id=me.id,
        role=me.role,
        resume=me.resume,
        resumed=resumed,
        participants=[participant_info(view_participant(p)) for p in others],
        tracks=[track_info(view_track(t)) for t in tracks],
        media=media,
        answer=answer,
        slots=[slot_info(slot) for slot in me.slots],
        ice_servers=list(ice_servers),
    )


def room_info(view: RoomView) -> RoomInfo:
    return RoomInfo(
        id=view.id,
        created_at=view.created_at,
        active=view.active,
        passive=view.passive,
        max_active=view.max_active,
        max_passive=view.max_passive,
        track_count=view.track_count,
        codecs=[codec.value for codec in view.codecs],
    )


def room_detail(detail: RoomsDetail) -> RoomDetail:
    return RoomDetail(
        **room_info(detail.room).model_dump(),
        participants=[participant_info(p) for p in detail.participants],
        tracks=[track_info(t) for t in detail.tracks],
        slots=[
            SlotInfo(
                participant_id=s.participant_id,
                mid=s.mid,
                kind=s.kind.value,
                state=s.state.value,
                track_id=s.track_id,
            )
            for s in detail.slots
        ],
    )


def message_of(event: Event) -> m.ServerMessage | None:
    """The message that tells a recipient of an event; None: nothing is said, something is done."""
    match event:
        case events.ParticipantJoined(participant=p):
            return m.ParticipantJoined(participant=participant_info(p))
        case events.ParticipantLeft(participant=p, reason=reason):
            return m.ParticipantLeft(participant_id=p.id, reason=reason)
        case events.RoleChanged(participant=p):
            return m.RoleChanged(participant_id=p.id, role=p.role)
        case events.ParticipantShown(participant=p):
            return m.ParticipantJoined(participant=participant_info(p))
        case events.ParticipantHidden(participant=p):
            return m.ParticipantLeft(participant_id=p.id, reason="it is backstage now")
        case events.TrackPublished(track=t):
            return m.TrackPublished(track=track_info(t))
        case events.TrackUnpublished(track=t):
            return m.TrackUnpublished(track_id=t.id)
        case events.TrackMuted(track=t, muted=muted):
            return m.TrackMuted(track_id=t.id, muted=muted)
        case events.Subscribed(subscriptions=subscriptions):
            return subscribed(subscriptions)
        case events.SubscriptionRefused(code=code, message=message):
            return m.Error(code=code, message=message)
        case events.Unsubscribed(track_id=track_id):
            return m.Unsubscribed(track_ids=[track_id])
        case events.LegLost():
            return m.LegState(state="lost")
        case events.SlotChanged():
            return m.SlotChanged(
                mid=event.mid,
                pair=event.pair,
                kind=event.kind,
                state=event.state.value,
                track_id=event.track_id,
                participant_id=event.publisher_id,
            )
        case events.SpeakerChanged(participant_id=speaker):
            return m.SpeakerChanged(participant_id=speaker)
        case events.NeedsSlots(pairs=pairs):
            return m.Grow(pairs=pairs)
        case _:
            # LegLive is told once the table is in force; RoomClosed closes the sessions.
            return None
