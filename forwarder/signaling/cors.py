"""Which pages of other origins may use the API (CORS): those of `api.cors_origins`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from forwarder.errors import ErrorCode
from forwarder.signaling import whip
from forwarder.signaling.bounds import problem

METHODS: Final = ("GET", "HEAD", "POST", "PATCH", "DELETE")
HEADERS: Final = ("authorization", "content-type", "if-match")


class Cors(CORSMiddleware):
    """Starlette's.  Of WHIP and WHEP a preflight also says what may be sent, as any OPTIONS shall
    (RFC 9725 section 4.2), and a refusal is a problem as everywhere."""

    def __init__(self, app: ASGIApp, *, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=list(origins),
            allow_methods=METHODS,
            allow_headers=HEADERS,
            expose_headers=whip.EXPOSED,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = scope["type"] == "http" and scope["method"] == "OPTIONS"
        if not asked or not whip.preflight(headers := Headers(scope=scope)):
            await super().__call__(scope, receive, send)
            return
        answer = self.preflight_response(headers)
        if answer.status_code == 200:
            answer.headers.update(whip.accepted(scope["path"]))
        await answer(scope, receive, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code == 200:
            return answer
        sentence = f"{bytes(answer.body).decode()}: api.cors_origins names the pages that may call"
        refused = problem(ErrorCode.FORBIDDEN, sentence, status=answer.status_code)
        told = {name: text for name, text in answer.headers.items() if "content" not in name}
        refused.headers.update(told)
        return refused
