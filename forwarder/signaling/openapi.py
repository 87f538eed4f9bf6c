"""What routes declare of themselves, and the OpenAPI document that is made of it.

A route names each status that it may answer with; the document holds nothing else.
tests/contract/test_api_schema.py asks a real node for all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import FastAPI, Path
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, Field

from forwarder.errors import ErrorCode

Declared = dict[int | str, dict[str, Any]]
"""Responses of a route, by status."""

RoomPath = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Room id")]
ADMIN: Final = {"admin": list[str]()}
JOIN: Final = {"join": list[str]()}
"""Security requirements: a token of which kind."""
SCHEMAS: Final = "#/components/schemas/{model}"


class Problem(BaseModel):
    """Every error of this API."""

    code: ErrorCode = Field(description="Machine-readable reason")
    message: str = Field(description="What failed, on what, and what to do")


def header(description: str, *, always: bool = True, **schema: Any) -> dict[str, Any]:
    """A header of a response; `schema`: what more is known of its value."""
    shape = {"type": "string"} | schema
    return {"description": description, "required": always, "schema": shape}


def errors(what: Mapping[int, str], *statuses: int) -> Declared:
    """Error responses, with the headers that bounds.problem() gives them.

    They are JSON whatever the route answers with; FastAPI's `model` would say otherwise."""
    headers = {
        401: {"WWW-Authenticate": header("RFC 6750", const="Bearer")},
        503: {"Retry-After": header("Seconds", type="integer")},
    }
    return {
        status: {
            "description": what[status],
            "content": {"application/json": {"schema": {"$ref": SCHEMAS.format(model="Problem")}}},
            **({"headers": headers[status]} if status in headers else {}),
        }
        for status in statuses
    }


def document(app: FastAPI, *, public: frozenset[str]) -> dict[str, Any]:
    """FastAPI's, less its own validation error, plus how to authenticate: what is not `public` and
    names no other token is for admins."""
    made = get_openapi(
        title=app.title,
        version=app.version,
        summary="Rooms, tokens and state of a vcfwd node",
        routes=app.routes,
    )
    made["components"]["securitySchemes"] = {
        kind: {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
        for kind in ("admin", "join")
    }
    schemas = made["components"]["schemas"]
    for schema in ("HTTPValidationError", "ValidationError"):
        schemas.pop(schema, None)
    problem = Problem.model_json_schema(ref_template=SCHEMAS)
    schemas |= {**problem.pop("$defs"), "Problem": problem}
    for path, operations in made["paths"].items():
        for operation in operations.values():
            responses = operation["responses"]
            if "HTTPValidationError" in str(responses.get("422")):
                del responses["422"]
            if path not in public:
                operation.setdefault("security", [ADMIN])
    return made
