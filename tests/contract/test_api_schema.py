"""Property tests of the HTTP API by its own OpenAPI document (schemathesis), against a real node.

What is asked for follows from the document, and so does what is right: no request ends in 500, each
status, content type, header and body is one that the document names, what the document forbids is
refused, what it allows is taken, and nothing is given without a token.

The cases are the same in each run.  VCFWD_SCHEMA_EXAMPLES makes it run for longer.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from node_kit import Site, node_of
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from signaling_world import MemoryBackend

from forwarder.clock import SystemClock
from forwarder.signaling import api
from forwarder.signaling.tokens import SigningKey, Tokens

EXAMPLES = int(os.environ.get("VCFWD_SCHEMA_EXAMPLES", "12"))
START_S = 60.0
OPEN = "/v1/health"
LAST = "/v1/drain"  # after it nobody is let in any more


def document() -> schemathesis.BaseSchema:
    app = api.build(MemoryBackend(), Tokens([SigningKey("k", "s" * 32)], clock=SystemClock()))
    made = schemathesis.openapi.from_asgi("/v1/openapi.json", app)
    return schemathesis.openapi.from_dict(made.raw_schema)


OPERATIONS = sorted(
    (found.ok() for found in document().get_all_operations() if isinstance(found, Ok)),
    key=lambda operation: operation.path == LAST,
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A node in a thread of its own."""
    made = Site(tmp_path_factory.mktemp("node"))
    ready, done = threading.Event(), threading.Event()
    failed: list[BaseException] = []

    async def run() -> None:
        async with node_of(made):
            ready.set()
            await asyncio.to_thread(done.wait)

    def work() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            failed.append(error)
            ready.set()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert ready.wait(START_S)
        assert not failed, failed
        yield made
    finally:
        done.set()
        thread.join(START_S)


@pytest.fixture(scope="module")
def session(site: Site) -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.trust_env = False
        made.verify = str(certificate(site))
        token, _ = site.tokens().create_admin(subject="schema")
        made.headers["authorization"] = f"Bearer {token}"
        made.post(f"{site.url()}/v1/rooms", json={"id": "0"}).raise_for_status()
        del made.headers["authorization"]
        yield made


def certificate(site: Site) -> Path:
    (found,) = [p for p in (site.base / "state").glob("*.pem") if "PRIVATE" not in p.read_text()]
    return found


CASES = [
    (operation, mode)
    for operation in OPERATIONS
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or operation.path != OPEN  # nothing can be wrong there
]


@pytest.mark.parametrize(
    ("operation", "mode"), CASES, ids=[f"{o.method} {o.path} {m.value}" for o, m in CASES]
)
def test_the_document_holds(
    operation: schemathesis.APIOperation,
    mode: GenerationMode,
    site: Site,
    session: requests.Session,
) -> None:
    made = 0
    token, _ = site.tokens().create_admin(subject="schema")
    headers = {"Authorization": f"Bearer {token}"}

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Case) -> None:
        nonlocal made
        made += 1
        case.call_and_validate(
            base_url=site.url(),
            session=session,
            headers=headers,
            timeout=30,
            verify=session.verify,
        )

    check()
    assert made
