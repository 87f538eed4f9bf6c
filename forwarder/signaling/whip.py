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
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from fastapi import FastAPI, Request, Response

from forwarder.errors import CodedError, ErrorCode, ProtocolError, TokenError
from forwarder.ids import RoomId
from forwarder.signaling.backend import WebRtc
from forwarder.signaling.bounds import problem
from forwarder.signaling.sdp.model import Way
from forwarder.signaling.tokens import Claims, Tokens
from forwarder.signaling.turn import Turn

SDP: Final = "application/sdp"
FRAGMENT: Final = "application/trickle-ice-sdpfrag"
RETRY_S: Final = 10  # Retry-After of 503: the deadline of handshakes
LAYER: Final = re.compile(r"[A-Za-z0-9_-]{1,16}")
WAYS: Final = {"whip": Way.RECEIVE, "whep": Way.SEND}
EXPOSED: Final = ("Location", "Link", "ETag", "Accept-Post", "Accept-Patch", "Retry-After")
"""What a page's script may read of a response (CORS)."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def add_routes(app: FastAPI, webrtc: WebRtc, tokens: Tokens, turn: Turn | None = None) -> None:
    """Adds /whip and /whep to the API.  Clients are told of the TURN servers."""
    endpoint = Endpoint(webrtc, tokens, turn)
    for name in WAYS:
        collection, session = f"/{name}/{{room}}", f"/{name}/{{room}}/{{resource}}"
        both = {"OPTIONS": endpoint.options, "GET": endpoint.get, "HEAD": endpoint.get}
        for path, methods in (
            (collection, both | {"POST": endpoint.post}),
            (session, both | {"PATCH": endpoint.patch, "DELETE": endpoint.delete}),
        ):
            app.add_route(path, _dispatch(methods), list(methods), include_in_schema=False)


def _dispatch(methods: Mapping[str, Handler]) -> Handler:
    async def handle(request: Request) -> Response:
        try:
            return await methods[request.method](request)
        except CodedError as error:
            return _refused(error)

    return handle


def _refused(error: CodedError) -> Response:
    status = error.status
    if error.code is ErrorCode.CODEC_UNSUPPORTED:
        status = 422  # the body is SDP as asked for; what it offers cannot be processed
    response = problem(error.code, str(error), status=status)
    if status == 503:
        response.headers["retry-after"] = str(RETRY_S)
    return response


class Endpoint:
    """The methods; one object serves all rooms."""

    def __init__(self, webrtc: WebRtc, tokens: Tokens, turn: Turn | None) -> None:
        self._webrtc = webrtc
        self._tokens = tokens
        self._turn = turn

    async def post(self, request: Request) -> Response:
        way, claims = self._authorize(request)
        _expect_type(request, SDP)
        if not _accepts(request, SDP):
            return problem(ErrorCode.BAD_MESSAGE, f"the answer is {SDP}", status=406)
        follow, layer = _wishes(request) if way is Way.SEND else ("", "")
        made = await self._webrtc.offer(way, claims, await request.body(), follow, layer)
        headers = {
            "location": f"{request.url.path.rstrip('/')}/{made.resource}",
            "etag": made.etag,
            "accept-patch": FRAGMENT,
            "content-type": SDP,
        }
        return self._linked(Response(made.sdp, 201, headers))

    async def patch(self, request: Request) -> Response:
        way, claims = self._authorize(request)
        _expect_type(request, FRAGMENT)
        resource = request.path_params["resource"]
        have = self._webrtc.etag(way, claims.room_id, resource)
        wanted = request.headers.get("if-match")
        if wanted is None:
            return problem(
                ErrorCode.BAD_MESSAGE, "send If-Match with the session's ETag, or *", status=428
            )
        if wanted.strip() != "*" and have not in [w.strip() for w in wanted.split(",")]:
            return problem(
                ErrorCode.BAD_MESSAGE, "ICE was restarted: this ETag is out of date", status=412
            )
        made = await self._webrtc.patch(way, claims.room_id, resource, await request.body())
        if made.sdp is None:  # without an ETag: RFC 9725 section 4.3.2
            return Response(status_code=204)
        return Response(made.sdp, 200, {"etag": made.etag, "content-type": FRAGMENT})

    async def delete(self, request: Request) -> Response:
        way, claims = self._authorize(request)
        await self._webrtc.leave(way, claims.room_id, request.path_params["resource"])
        return Response(status_code=200)

    async def get(self, request: Request) -> Response:
        """Neither has a representation; whether a session is there is its owner's business."""
        if "resource" in request.path_params:
            way, claims = self._authorize(request)
            self._webrtc.etag(way, claims.room_id, request.path_params["resource"])
        return Response(status_code=204)

    async def options(self, request: Request) -> Response:
        """RFC 9725 section 4.1: what may be posted; needs no token.  One with a token is told the
        TURN servers before it makes its offer (section 4.6)."""
        if "resource" in request.path_params:
            return Response(status_code=200, headers={"accept-patch": FRAGMENT})
        answer = Response(status_code=200, headers={"accept-post": SDP})
        if "authorization" in request.headers:
            self._authorize(request)
            return self._linked(answer)
        return answer

    def _linked(self, response: Response) -> Response:
        # The name means nothing: what a TURN server logs leads to no session and no person.
        links = self._turn.links(secrets.token_hex(8)) if self._turn is not None else []
        for link in links:
            response.headers.append("link", link)
        return response

    def _authorize(self, request: Request) -> tuple[Way, Claims]:
        """Raises TokenError: 401."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise TokenError("this needs a token for the room: `Authorization: Bearer ...`")
        room_id = RoomId(request.path_params["room"])
        claims = self._tokens.verify_join(token.strip(), room_id=room_id)
        return WAYS[request.url.path.split("/")[1]], claims


def _wishes(request: Request) -> tuple[str, str]:
    """Whom a viewer wants to see, and which layer of it."""
    layer = request.query_params.get("layer", "")
    if layer and not LAYER.fullmatch(layer):
        raise ProtocolError(
            ErrorCode.BAD_MESSAGE, 'layer is "low", "high", a rid or a number from 0 on'
        )
    return request.query_params.get("participant", ""), layer


def _expect_type(request: Request, wanted: str) -> None:
    found = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if found != wanted:
        raise _UnsupportedType(f"the body must be {wanted}")


def _accepts(request: Request, wanted: str) -> bool:
    """Whether the Accept header, where there is one, allows the type."""
    allowed = request.headers.get("accept", "*/*")
    ranges = [item.partition(";")[0].strip().lower() for item in allowed.split(",")]
    return any(r in (wanted, "*/*", wanted.partition("/")[0] + "/*", "") for r in ranges)


class _UnsupportedType(ProtocolError):
    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.BAD_MESSAGE, message)

    @property
    def status(self) -> int:
        return 415
