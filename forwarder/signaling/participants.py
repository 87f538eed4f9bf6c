"""`/v1/rooms/{room_id}/participants/{participant_id}`: the role of somebody who is in a room."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from forwarder.ids import ParticipantId, RoomId
from forwarder.rooms.roles import Role
from forwarder.signaling.backend import Backend
from forwarder.signaling.messages import ParticipantInfo

NAME = r"^[A-Za-z0-9_-]{1,64}$"


class ChangeParticipant(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    role: Role = Field(
        strict=False,
        description="From now on, until it leaves; one that joins anew has its token's",
    )


def _backend(request: Request) -> Backend:
    backend: Backend = request.app.state.context.backend
    return backend


router = APIRouter(tags=["rooms"])


@router.patch(
    "/v1/rooms/{room_id}/participants/{participant_id}",
    summary="Promote a participant to the stage, or take it off; no client is sent SDP for it",
)
async def change_participant(
    backend: Annotated[Backend, Depends(_backend)],
    room_id: Annotated[str, Path(pattern=NAME, description="Room id")],
    participant_id: Annotated[str, Path(pattern=NAME, description="Participant id")],
    body: ChangeParticipant,
) -> ParticipantInfo:
    return await backend.set_role(RoomId(room_id), ParticipantId(participant_id), body.role)
