"""`/v1/drain`: the node is emptied, so that it can be upgraded or taken away."""

from __future__ import annotations

from typing import Annotated, Final, Protocol

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from forwarder.errors import ErrorCode, Refused

DEADLINE_MAX_S: Final = 7 * 24 * 3600


class Draining(BaseModel):
    """How far a node is with being emptied."""

    model_config = ConfigDict(frozen=True)

    draining: bool
    rooms: int = Field(description="Rooms with somebody in them")
    participants: int = Field(description="Who is still here; those who may resume, too")
    left_s: float | None = Field(description="Seconds until they are sent away; null: never")


class BeginDrain(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    deadline_s: float | None = Field(
        default=None,
        ge=0,
        le=DEADLINE_MAX_S,
        allow_inf_nan=False,
        description="Seconds until the last ones are sent away; left out: never",
    )


class Drainer(Protocol):
    """The supervisor, as these routes see it (supervisor/drain.py)."""

    def begin(self, deadline_s: float | None) -> Draining:
        """Admits nobody new; the node stops when nobody is left or the deadline is over."""

    def progress(self) -> Draining: ...


def _drainer(request: Request) -> Drainer:
    found: Drainer | None = request.app.state.drain
    if found is None:
        raise Refused(ErrorCode.UNAVAILABLE, "this node cannot be drained")
    return found


Needs = Annotated[Drainer, Depends(_drainer)]
router = APIRouter(tags=["node"])


@router.get("/v1/drain", summary="How empty the node is")
async def progress(drainer: Needs) -> Draining:
    return drainer.progress()


@router.post(
    "/v1/drain",
    status_code=202,
    summary="Admit nobody new; stop the node when it is empty or the deadline is over",
)
async def begin(drainer: Needs, body: BeginDrain | None = None) -> Draining:
    return drainer.begin(body.deadline_s if body is not None else None)
