"""The HTTP API as one ASGI application, served over TCP/TLS, HTTP/3 and a Unix socket.

Every error has the body {code, message}.  Who may call: an admin token as bearer, or whoever can
open the node's Unix socket (mode 0600), which the command line uses.  /v1/health is for everybody.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from starlette.exceptions import HTTPException
from starlette.routing import Match

from forwarder import __version__
from forwarder.errors import CodedError, ErrorCode, Refused, TokenError
from forwarder.ids import RoomId
from forwarder.rooms.roles import Role
from forwarder.rtp.codecs import Codec, Kind
from forwarder.signaling import drain as draining
from forwarder.signaling import openapi, participants, whip
from forwarder.signaling.asgi_h3 import AsgiApp, AsgiReceive, AsgiSend
from forwarder.signaling.backend import Backend, RoomDetail, RoomInfo, WebRtc
from forwarder.signaling.bounds import bounded, problem
from forwarder.signaling.cors import Cors
from forwarder.signaling.framing import excerpt
from forwarder.signaling.openapi import RoomPath
from forwarder.signaling.tokens import NAME_MAX, TTL_DEFAULT_S, TTL_MAX_S, Tokens
from forwarder.signaling.turn import Turn

logger = logging.getLogger(__name__)

LIMIT_MAX: Final = 100_000  # participants that a room may be asked to hold
LOCAL_ADMIN: Final = "vcfwd.admin"  # key of the ASGI scope, set by `local_admin` only
PUBLIC: Final = frozenset({"/v1/health", "/v1/openapi.json"})


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def video(codec: Codec) -> Codec:
    """ValueError: it is one of sound."""
    if codec.kind is not Kind.VIDEO:
        raise ValueError(f"{codec.value} is no video codec")
    return codec


def once(codecs: list[Codec]) -> list[Codec]:
    """ValueError: one comes twice."""
    if len(set(codecs)) != len(codecs):
        raise ValueError("each codec once")
    return codecs


def whole(value: Any) -> Any:
    """2.0 is an integer in JSON Schema (2020-12, section 6.1.1 of its validation part)."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


RoomIdText = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
VideoCodec = Annotated[
    Codec,
    Field(strict=False),
    AfterValidator(video),
    WithJsonSchema({"type": "string", "enum": [c.value for c in Codec if c.kind is Kind.VIDEO]}),
]
VideoCodecs = Annotated[
    list[VideoCodec],
    Field(min_length=1, max_length=4, json_schema_extra={"uniqueItems": True}),
    AfterValidator(once),
]
Limit = Annotated[int, Field(ge=0, le=LIMIT_MAX), BeforeValidator(whole)]
Name = Annotated[str, Field(min_length=1, max_length=NAME_MAX)]
Ttl = Annotated[
    int,
    Field(ge=1, le=TTL_MAX_S, description="Seconds until it expires"),
    BeforeValidator(whole),
]


class CreateRoom(Body):
    id: RoomIdText | None = Field(default=None, description="Room id; made up where it is left out")
    max_active: Limit | None = Field(default=None, description="Default: rooms.max_active")
    max_passive: Limit | None = Field(default=None, description="Default: rooms.max_passive")
    codecs: VideoCodecs | None = Field(
        default=None,
        description="Video codecs that may be sent here, best first: what a browser that publishes "
        "is answered by",
    )


class CreateToken(Body):
    role: Role = Field(strict=False)
    name: Name = Field(description="Shown to the others in the room")
    subject: Name | None = Field(default=None, description="Who it is; default: the name")
    ttl_s: Ttl = TTL_DEFAULT_S


class CreateAdminToken(Body):
    subject: Name = Field(description="Who will use it")
    ttl_s: Ttl = TTL_DEFAULT_S


class Token(BaseModel):
    token: str = Field(description="JSON Web Token")
    expires_at: float = Field(description="Seconds since 1970-01-01 UTC")


class Health(BaseModel):
    status: str = Field(description='"ok"')
    version: str


class Context:
    """What the routes need; kept in the application's state."""

    def __init__(
        self, backend: Backend, tokens: Tokens, metrics: Callable[[], bytes] | None
    ) -> None:
        self.backend = backend
        self.tokens = tokens
        self.metrics = metrics


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def _authorize(request: Request) -> None:
    """Raises TokenError unless the caller is an admin."""
    if request.scope.get(LOCAL_ADMIN) is True:
        return
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise TokenError("this needs an admin token: `Authorization: Bearer ...`")
    _context(request).tokens.verify_admin(token.strip())


def _authorize_metrics(request: Request) -> None:
    """A collector on the same host needs no token."""
    try:
        if request.client is not None and ipaddress.ip_address(request.client.host).is_loopback:
            return
    except ValueError:
        pass
    _authorize(request)


Needs = Annotated[Context, Depends(_context)]


def _errors(*statuses: int) -> openapi.Declared:
    """The error responses of a route, for the OpenAPI document."""
    what = {
        400: "The request is malformed",
        401: "No valid admin token",
        404: "There is no such room or participant",
        409: "The room exists, or is full",
        413: "The body is too long",
        429: "A limit of the node",
        503: "The node cannot do it now",
    }
    return openapi.errors(what, *statuses)


router = APIRouter(dependencies=[Depends(_authorize)])
public = APIRouter()


@router.post(
    "/v1/rooms",
    status_code=201,
    tags=["rooms"],
    summary="Create a room",
    responses=_errors(400, 401, 409, 413, 429, 503),
)
async def create_room(context: Needs, body: CreateRoom | None = None) -> RoomInfo:
    wanted = body or CreateRoom()
    room = await context.backend.create_room(
        RoomId(wanted.id) if wanted.id is not None else None,
        max_active=wanted.max_active,
        max_passive=wanted.max_passive,
        codecs=tuple(wanted.codecs) if wanted.codecs is not None else None,
    )
    return RoomInfo(**room.model_dump(include=set(RoomInfo.model_fields)))


@router.get("/v1/rooms", tags=["rooms"], summary="All rooms", responses=_errors(401, 503))
async def list_rooms(context: Needs) -> list[RoomInfo]:
    rooms = await context.backend.list_rooms()
    return [RoomInfo(**room.model_dump(include=set(RoomInfo.model_fields))) for room in rooms]


@router.get(
    "/v1/rooms/{room_id}",
    tags=["rooms"],
    summary="A room with its participants and tracks",
    responses=_errors(400, 401, 404, 503),
)
async def show_room(context: Needs, room_id: RoomPath) -> RoomDetail:
    return await context.backend.show_room(RoomId(room_id))


@router.delete(
    "/v1/rooms/{room_id}",
    status_code=204,
    tags=["rooms"],
    summary="Close a room and the sessions in it",
    responses=_errors(400, 401, 404, 503),
)
async def close_room(context: Needs, room_id: RoomPath) -> Response:
    await context.backend.close_room(RoomId(room_id), "the room was closed")
    return Response(status_code=204)


@router.post(
    "/v1/rooms/{room_id}/tokens",
    status_code=201,
    tags=["tokens"],
    summary="A token that lets one person into the room",
    responses=_errors(400, 401, 404, 413, 503),
)
async def create_token(context: Needs, room_id: RoomPath, body: CreateToken) -> Token:
    if not context.backend.has_room(RoomId(room_id)):
        raise Refused(ErrorCode.NO_SUCH_ROOM, f"there is no room {room_id}; create it first")
    token, expires_at = context.tokens.create_join(
        RoomId(room_id),
        role=body.role,
        name=body.name,
        subject=body.subject or body.name,
        ttl_s=body.ttl_s,
    )
    return Token(token=token, expires_at=expires_at)


@router.post(
    "/v1/tokens",
    status_code=201,
    tags=["tokens"],
    summary="A token for this API",
    responses=_errors(400, 401, 413, 503),
)
async def create_admin_token(context: Needs, body: CreateAdminToken) -> Token:
    token, expires_at = context.tokens.create_admin(subject=body.subject, ttl_s=body.ttl_s)
    return Token(token=token, expires_at=expires_at)


@router.get("/v1/status", tags=["node"], summary="The node's state", responses=_errors(401, 503))
async def status(context: Needs) -> dict[str, Any]:
    return await context.backend.status()


@public.get("/v1/health", tags=["node"], summary="Whether the node answers")
async def health() -> Health:
    return Health(status="ok", version=__version__)


async def _metrics(request: Request) -> Response:
    _authorize_metrics(request)
    metrics = _context(request).metrics
    body = metrics() if metrics is not None else b""
    return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")


def build(
    backend: Backend,
    tokens: Tokens,
    *,
    metrics: Callable[[], bytes] | None = None,
    metrics_path: str = "/metrics",
    cors_origins: Sequence[str] = (),
    webrtc: WebRtc | None = None,
    drain: draining.Drainer | None = None,
    turn: Turn | None = None,
) -> AsgiApp:
    """The application.  `metrics` returns the Prometheus text; `webrtc` serves WHIP and WHEP."""
    app = FastAPI(
        title="vcfwd", version=__version__, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.state.context = Context(backend, tokens, metrics)
    app.state.drain = drain
    app.include_router(router)
    app.include_router(
        participants.router,
        dependencies=[Depends(_authorize)],
        responses=_errors(400, 401, 404, 409, 413, 503),
    )
    app.include_router(
        draining.router, dependencies=[Depends(_authorize)], responses=_errors(400, 401, 413, 503)
    )
    app.include_router(public)
    if webrtc is not None:
        whip.add_routes(app, webrtc, tokens, turn)
    if metrics is not None:
        app.add_route(metrics_path, _metrics, methods=["GET"], include_in_schema=False)
    app.add_route("/v1/openapi.json", _openapi, methods=["GET"], include_in_schema=False)
    app.add_exception_handler(CodedError, _coded)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _internal)
    if cors_origins:
        app.add_middleware(Cors, origins=cors_origins)
    return bounded(app)


async def _openapi(request: Request) -> Response:
    return JSONResponse(openapi.document(request.app, public=PUBLIC))


async def _coded(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, CodedError)
    return problem(exc.code, str(exc), status=exc.status)


async def _invalid(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    faults = [
        f"{excerpt('.'.join(str(part) for part in error['loc']))}: {excerpt(error['msg'], 120)}"
        for error in exc.errors()[:4]
    ]
    unknown = all(error["type"] == "extra_forbidden" for error in exc.errors())
    code = ErrorCode.UNKNOWN_FIELD if unknown else ErrorCode.BAD_MESSAGE
    return problem(code, "; ".join(faults))


async def _http(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    sentences = {404: "there is nothing at this path", 405: "this path does not take this method"}
    sentence = sentences.get(exc.status_code, "the request cannot be read")
    response = problem(ErrorCode.BAD_MESSAGE, sentence, status=exc.status_code)
    response.headers.update(exc.headers or {})
    if exc.status_code == 405:
        response.headers["allow"] = ", ".join(_methods(request))
    return response


def _methods(request: Request) -> list[str]:
    """Those of the path; Starlette's own Allow has those of the first route with this path."""
    return [
        method
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
        if any(
            r.matches({**request.scope, "method": method})[0] is Match.FULL
            for r in request.app.routes
        )
    ]


async def _internal(_: Request, exc: Exception) -> Response:
    # Starlette logs the traceback where the server is; the caller learns nothing of our insides.
    return problem(ErrorCode.INTERNAL, "the node failed; it is in its log")


def local_admin(app: AsgiApp) -> AsgiApp:
    """The application for callers that the operating system has authenticated."""

    async def admin(scope: Any, receive: AsgiReceive, send: AsgiSend) -> None:
        await app({**scope, LOCAL_ADMIN: True}, receive, send)

    return admin
