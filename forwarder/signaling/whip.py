"""WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep-03): an offer by POST, the answer with 201.

    POST    /whip/{room}        /whep/{room}[?participant=ID][&layer=L]     201, Location, ETag
    PATCH   /whip/{room}/{id}   candidates: 204; other credentials, an ICE restart: 200
    DELETE  the same            200
    GET     each                204: there is nothing to show (RFC 9725 section 4.1); HEAD likewise
    OPTIONS                     200, Accept-Post or Accept-Patch

Each request carries a join token for the room as bearer.  The node always answers; a WHEP client
that would have the server offer gets 422, and so does a WHIP client of which the node cannot take
every track (RFC 9725 sections 4.4.2 and 4.4.3).  `{id}` cannot be guessed.  `participant`: only
this one, else who speaks.  `layer`: "low", "high", a rid or a number (0 is the lowest), else what
the network allows.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Final, NamedTuple

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request, Response

from forwarder.errors import ErrorCode, ProtocolError, TokenError
from forwarder.ids import RoomId
from forwarder.signaling.backend import WebRtc
from forwarder.signaling.bounds import BODY_MAX
from forwarder.signaling.openapi import JOIN, Declared, RoomPath, errors, header
from forwarder.signaling.sdp.model import Way
from forwarder.signaling.tokens import Claims, Tokens
from forwarder.signaling.turn import Turn

SDP: Final = "application/sdp"
FRAGMENT: Final = "application/trickle-ice-sdpfrag"
WAYS: Final = {"whip": Way.RECEIVE, "whep": Way.SEND}
EXPOSED: Final = ("Location", "Link", "ETag", "Accept-Post", "Accept-Patch", "Retry-After")
"""What a page's script may read of a response (CORS)."""
NO_WEIGHT: Final = re.compile(r"q=0(\.0{0,3})?")


class Context(NamedTuple):
    """What the routes need; kept in the application's state."""

    webrtc: WebRtc
    tokens: Tokens
    turn: Turn | None


class Visit(NamedTuple):
    """Whose request it is, and which of the two it asks for."""

    way: Way
    claims: Claims

    @property
    def room_id(self) -> RoomId:
        return self.claims.room_id


class Answer(Response):
    media_type = SDP


class Fragment(Response):
    media_type = FRAGMENT


class _Told(ProtocolError):
    """Refused with a status that says more than a code could."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(ErrorCode.BAD_MESSAGE, message)
        self._status = status

    @property
    def status(self) -> int:
        return self._status


async def _context(request: Request) -> Context:
    context: Context = request.app.state.whip
    return context


Needs = Annotated[Context, Depends(_context)]


async def _visit(request: Request, context: Needs, room: RoomPath) -> Visit:
    """Raises TokenError: 401."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise TokenError("this needs a token for the room: `Authorization: Bearer ...`")
    claims = context.tokens.verify_join(token.strip(), room_id=RoomId(room))
    return Visit(WAYS[request.url.path.split("/")[1]], claims)


Visitor = Annotated[Visit, Depends(_visit)]
Resource = Annotated[str, Path(description="The last part of the session's Location")]


def _errors(*statuses: int) -> Declared:
    """The error responses of a route, for the OpenAPI document."""
    what = {
        400: "The request, its body or the room's name is malformed",
        401: "No valid token for this room",
        403: "The role of the token may not do this",
        404: "There is no such room, session or participant",
        406: "The client does not accept the answer's type",
        409: "The room is full, or an SSRC of the offer is in use",
        412: "The ETag is of another ICE session",
        413: "The body is too long",
        415: "The body is of another type",
        422: "The offer cannot be accepted as a whole",
        428: "If-Match is missing",
        429: "A limit of the node",
        503: "The node cannot do it now: too many handshakes, or it is drained",
    }
    return errors(what, *statuses)


def _body(media_type: str) -> dict[str, Any]:
    schema = {"type": "string", "maxLength": BODY_MAX}
    return {"required": True, "content": {media_type: {"schema": schema}}}


TOKEN: Final[dict[str, Any]] = {"security": [JOIN]}
ETAG: Final = '^"[^"]+"$'  # a strong one
POSTABLE: Final = header("What may be posted", const=SDP)
PATCHABLE: Final = header("What the session may be patched with", const=FRAGMENT)
LINK: Final = {
    "Link": header("A TURN server, one header each (RFC 9725 section 4.6)", always=False)
}


def _offer(*more: int) -> dict[str, Any]:
    """What POST of both declares, and `more` errors."""
    made = {
        "Location": header("The session", pattern="^/(whip|whep)/[^/]+/[^/]+$"),
        "ETag": header("Names the ICE session", pattern=ETAG),
        "Accept-Patch": PATCHABLE,
        **LINK,
    }
    refused = _errors(400, 401, 404, 406, 409, 413, 415, 422, 429, 503, *more)
    return {
        "status_code": 201,
        "response_class": Answer,
        "response_description": "The answer; the session is there",
        "responses": {201: {"headers": made}, **refused},
        "openapi_extra": TOKEN | {"requestBody": _body(SDP)},
    }


whip = APIRouter(prefix="/whip", tags=["WHIP"])
whep = APIRouter(prefix="/whep", tags=["WHEP"])
both = APIRouter()


def add_routes(app: FastAPI, webrtc: WebRtc, tokens: Tokens, turn: Turn | None = None) -> None:
    """Adds /whip and /whep to the API.  Clients are told of the TURN servers."""
    app.state.whip = Context(webrtc, tokens, turn)
    for router in (whip, whep):
        app.include_router(router)
        app.include_router(both, prefix=router.prefix, tags=router.tags)


@whip.post("/{room}", summary="Publish, by the offer of who sends", **_offer(403))
async def publish(request: Request, context: Needs, visit: Visitor) -> Response:
    return await _offered(request, context, visit)


@whep.post("/{room}", summary="View, by the offer of who receives", **_offer())
async def view(
    request: Request,
    context: Needs,
    visit: Visitor,
    participant: Annotated[
        str, Query(max_length=64, description="Only this one; default: who speaks")
    ] = "",
    layer: Annotated[
        str,
        Query(
            pattern=r"^[A-Za-z0-9_-]{0,16}$",
            description='"low", "high", a rid or a number (0 is the lowest); default: what the '
            "network allows",
        ),
    ] = "",
) -> Response:
    return await _offered(request, context, visit, participant, layer)


async def _offered(
    request: Request, context: Context, visit: Visit, participant: str = "", layer: str = ""
) -> Response:
    _expect_type(request, SDP)
    if not _accepts(request, SDP):
        raise _Told(406, f"the answer is {SDP}")
    made = await context.webrtc.offer(
        visit.way, visit.claims, await request.body(), participant, layer
    )
    headers = {
        "location": f"{request.url.path}/{made.resource}",
        "etag": made.etag,
        "accept-patch": FRAGMENT,
    }
    return _linked(Answer(made.sdp, 201, headers), context.turn)


@both.get(
    "/{room}",
    status_code=204,
    summary="Nothing: an endpoint has no representation",
    responses=_errors(400),
    openapi_extra={"security": []},
)
@both.head("/{room}", include_in_schema=False)
async def show_endpoint(room: RoomPath) -> Response:
    """RFC 9725 section 4.1."""
    return Response(status_code=204)


@both.options(
    "/{room}",
    response_class=Response,
    summary="What may be posted; with a token also the TURN servers",
    responses={200: {"headers": {"Accept-Post": POSTABLE, **LINK}}, **_errors(400, 401)},
    openapi_extra={"security": [JOIN, {}]},
)
async def tell_endpoint(request: Request, context: Needs, room: RoomPath) -> Response:
    """RFC 9725 section 4.2.  Of TURN servers before the offer: section 4.6, but no preflight."""
    answer = Response(headers=accepted(request.url.path))
    if "authorization" not in request.headers or preflight(request.headers):
        return answer
    await _visit(request, context, room)
    return _linked(answer, context.turn)


@both.patch(
    "/{room}/{resource}",
    response_class=Fragment,
    response_description="ICE was restarted: the node's new credentials",
    summary="Candidates, or new credentials: an ICE restart",
    responses={
        200: {"headers": {"ETag": header("Names the new ICE session", pattern=ETAG)}},
        204: {"description": "The candidates are taken"},
        **_errors(400, 401, 404, 412, 413, 415, 428, 503),
    },
    openapi_extra=TOKEN
    | {
        "parameters": [
            {
                "name": "If-Match",
                "in": "header",
                "required": True,
                "description": "The ETag of the ICE session, or *",
                "schema": {"type": "string"},
            }
        ],
        "requestBody": _body(FRAGMENT),
    },
)
async def patch(request: Request, context: Needs, visit: Visitor, resource: Resource) -> Response:
    _expect_type(request, FRAGMENT)
    body = await request.body()  # first: ICE may be restarted by another one while it comes
    have = context.webrtc.etag(visit.way, visit.room_id, resource)
    wanted = request.headers.get("if-match")
    if wanted is None:
        raise _Told(428, "send If-Match with the session's ETag, or *")
    # In quotes * is what drafts of RFC 9725 show, and clients copy it; no ETag of ours is like it.
    if not {"*", '"*"', have} & {item.strip() for item in wanted.split(",")}:
        raise _Told(412, "ICE was restarted: this ETag is out of date")
    made = await context.webrtc.patch(visit.way, visit.room_id, resource, body)
    if made.sdp is None:  # without an ETag: RFC 9725 section 4.3.2
        return Response(status_code=204)
    return Fragment(made.sdp, 200, {"etag": made.etag})


@both.delete(
    "/{room}/{resource}",
    response_class=Response,
    summary="End the session",
    responses=_errors(400, 401, 404, 503),
    openapi_extra=TOKEN,
)
async def delete(context: Needs, visit: Visitor, resource: Resource) -> Response:
    """Whatever If-Match says (RFC 9725 section 4.3.1)."""
    await context.webrtc.leave(visit.way, visit.room_id, resource)
    return Response()


@both.get(
    "/{room}/{resource}",
    status_code=204,
    summary="Nothing, if it is there: a session has no representation",
    responses=_errors(400, 401, 404),
    openapi_extra=TOKEN,
)
@both.head("/{room}/{resource}", include_in_schema=False)
async def show_session(context: Needs, visit: Visitor, resource: Resource) -> Response:
    """RFC 9725 section 4.1; whether a session is there is its owner's business."""
    context.webrtc.etag(visit.way, visit.room_id, resource)
    return Response(status_code=204)


@both.options(
    "/{room}/{resource}",
    response_class=Response,
    summary="What a session may be patched with",
    responses={200: {"headers": {"Accept-Patch": PATCHABLE}}, **_errors(400)},
    openapi_extra={"security": []},
)
async def tell_session(request: Request, room: RoomPath, resource: Resource) -> Response:
    return Response(headers=accepted(request.url.path))


def accepted(path: str) -> dict[str, str]:
    """The header that tells what may be sent to the path; none if it is not one of these."""
    first, *rest = path.strip("/").split("/")
    if first not in WAYS or not rest or not all(rest):
        return {}
    return {1: {"accept-post": SDP}, 2: {"accept-patch": FRAGMENT}}.get(len(rest), {})


def preflight(headers: Mapping[str, str]) -> bool:
    """Whether OPTIONS is a browser's question about CORS (Fetch section 3.3.2)."""
    return "origin" in headers and "access-control-request-method" in headers


def _linked(response: Response, turn: Turn | None) -> Response:
    # The name means nothing: what a TURN server logs leads to no session and no person.
    for link in turn.links(secrets.token_hex(8)) if turn is not None else []:
        response.headers.append("link", link)
    return response


def _expect_type(request: Request, wanted: str) -> None:
    found = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if found != wanted:
        raise _Told(415, f"the body must be {wanted}")


def _accepts(request: Request, wanted: str) -> bool:
    """Whether the Accept header allows the type: its narrowest range decides (RFC 9110 section
    12.5.1).  One that names no range at all forbids nothing."""
    weights: dict[str, bool] = {}
    for item in request.headers.get("accept", "").split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        if name:
            weights[name] = not any(NO_WEIGHT.fullmatch(parameter) for parameter in parameters)
    for name in (wanted, wanted.partition("/")[0] + "/*", "*/*"):
        if name in weights:
            return weights[name]
    return not weights
