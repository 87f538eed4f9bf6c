"""`vcfwd bot`: a participant without a person, for any node."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn
from urllib.parse import quote

import typer

from forwarder.cli.admin import Admin, RunDir, errors_told

if TYPE_CHECKING:
    from forwarder.client.bot import BotOptions
    from forwarder.rtp.suites import Suite


def _need_codecs() -> None:
    """An appliance may come without them."""
    for module in ("av", "pylibsrtp"):
        if find_spec(module) is None:
            _fail(f"{module} is not installed: install the extra `client` of vcfwd")


app = typer.Typer(
    help="Publish a file, or receive a room, on any node.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Url = Annotated[str | None, typer.Option(help="The node: https://HOST:PORT.")]
Room = Annotated[
    str | None,
    typer.Option(help="Room on the node of this host; makes the token by its admin socket."),
]
Token = Annotated[
    str | None,
    typer.Option(
        help="Join token. Others can read a command line: prefer VCFWD_TOKEN or --token-file."
    ),
]
TokenFile = Annotated[Path | None, typer.Option(help="File that holds the join token.")]
CertHash = Annotated[
    str | None, typer.Option(help="SHA-256 of the node's certificate, as `vcfwd up` prints it.")
]
CaFile = Annotated[Path | None, typer.Option(help="Certification authorities (PEM).")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Take any certificate.")]
BindAddress = Annotated[str | None, typer.Option(help="Local IP address.")]
Name = Annotated[str, typer.Option(help="Name of the client.")]
SuiteName = Annotated[str, typer.Option(help="SRTP suites offered: any, gcm or sha1.")]
Seconds = Annotated[float | None, typer.Option(help="Leave after this time; else on SIGINT.")]
Seed = Annotated[int | None, typer.Option(help="SSRCs and numbering are the same each time.")]
LogPackets = Annotated[Path | None, typer.Option(help="Write a binary log of RTP packets.")]
Png = Annotated[Path | None, typer.Option(help="Write the first decoded picture.")]
Decode = Annotated[str, typer.Option(help="What to decode: all, first-second or none.")]
Garbage = Annotated[
    int, typer.Option(min=0, max=1000, help="Malformed datagrams a second from its own socket.")
]
Json = Annotated[bool, typer.Option("--json", help="Progress as JSON lines on stdout.")]
Stdin = Annotated[
    bool, typer.Option("--stdin", help="Be led by lines on stdin: join, start, stop, quit.")
]

DEFAULT_URL = "https://127.0.0.1:4433"


@app.command()
def publish(
    file: Annotated[Path, typer.Argument(help="A file with pictures, sound or both.")],
    url: Url = None,
    room: Room = None,
    token: Token = None,
    token_file: TokenFile = None,
    cert_hash: CertHash = None,
    ca_file: CaFile = None,
    insecure: Insecure = False,
    bind_address: BindAddress = None,
    name: Name = "bot-publisher",
    suite: SuiteName = "any",
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the pictures.")] = "1280x720",
    fps: Annotated[int, typer.Option(min=1, max=120, help="Pictures a second.")] = 30,
    bitrate: Annotated[int, typer.Option(min=20_000, help="Video, bits a second.")] = 2_500_000,
    subscribe_too: Annotated[
        bool, typer.Option("--subscribe", help="Receive the rest of the room as well.")
    ] = False,
    seconds: Seconds = None,
    seed: Seed = None,
    log_packets: LogPackets = None,
    png: Png = None,
    decode: Decode = "all",
    garbage: Garbage = 0,
    json_: Json = False,
    stdin: Stdin = False,
    run_dir: RunDir = None,
) -> None:
    """Publishes a file, encoded live, in a loop.

    Example: vcfwd bot publish clip.mp4 --room demo --seconds 30
    """
    _need_codecs()
    from forwarder.client.bot import BotOptions
    from forwarder.client.subscribe import DecodeMode

    known = insecure or ca_file is not None
    where, digest = _node(url, cert_hash, room, run_dir, known)
    width, _, height = size.partition("x")
    if not (width.isdigit() and height.isdigit()):
        _fail(f"--size {size} is not WIDTHxHEIGHT, as in 1280x720")
    _run(
        BotOptions(
            where,
            _token(token, token_file, room, run_dir),
            digest,
            str(ca_file) if ca_file else None,
            insecure,
            bind_address,
            name,
            _suites(suite),
            publish=str(file),
            subscribe=subscribe_too,
            size=(int(width), int(height)),
            fps=fps,
            bitrate=bitrate,
            decode=DecodeMode(_one_of(decode, "decode", [str(mode) for mode in DecodeMode])),
            seconds=seconds,
            seed=seed,
            log_packets=log_packets,
            png=png,
            garbage=garbage,
            stdin=stdin,
        ),
        json_=json_,
    )


@app.command()
def subscribe(
    url: Url = None,
    room: Room = None,
    token: Token = None,
    token_file: TokenFile = None,
    cert_hash: CertHash = None,
    ca_file: CaFile = None,
    insecure: Insecure = False,
    bind_address: BindAddress = None,
    name: Name = "bot-subscriber",
    suite: SuiteName = "any",
    seconds: Seconds = None,
    seed: Seed = None,
    log_packets: LogPackets = None,
    png: Png = None,
    decode: Decode = "all",
    garbage: Garbage = 0,
    json_: Json = False,
    stdin: Stdin = False,
    run_dir: RunDir = None,
) -> None:
    """Receives everything that is published in a room.

    Example: vcfwd bot subscribe --room demo --seconds 10 --png first.png
    """
    _need_codecs()
    from forwarder.client.bot import BotOptions
    from forwarder.client.subscribe import DecodeMode

    known = insecure or ca_file is not None
    where, digest = _node(url, cert_hash, room, run_dir, known)
    _run(
        BotOptions(
            where,
            _token(token, token_file, room, run_dir),
            digest,
            str(ca_file) if ca_file else None,
            insecure,
            bind_address,
            name,
            _suites(suite),
            subscribe=True,
            decode=DecodeMode(_one_of(decode, "decode", [str(mode) for mode in DecodeMode])),
            seconds=seconds,
            seed=seed,
            log_packets=log_packets,
            png=png,
            garbage=garbage,
            stdin=stdin,
        ),
        json_=json_,
    )


def _run(options: BotOptions, *, json_: bool) -> None:
    import uvloop

    from forwarder.client.bot import Bot, emit_json
    from forwarder.errors import VcfwdError

    options.emit = emit_json if json_ else _say

    async def run() -> None:
        emit_json(await Bot(options).run())

    try:
        uvloop.run(run())
    except (VcfwdError, OSError, ValueError) as error:
        _fail(str(error))


def _say(event: dict[str, object]) -> None:
    """For people: one line on stderr; stdout is for the summary."""
    values = ", ".join(f"{key} {value}" for key, value in event.items() if key != "event")
    print(f"{event['event']}: {values}", file=sys.stderr)


def _token(
    token: str | None, token_file: Path | None, room: str | None, run_dir: Path | None
) -> str:
    if token_file is not None:
        try:
            return token_file.read_text().strip()
        except OSError as error:
            _fail(f"cannot read the token from {token_file}: {error.strerror}")
    token = token or os.environ.get("VCFWD_TOKEN")
    if token:
        return token
    if room is None:
        _fail("no token: give --token-file or VCFWD_TOKEN, or --room for a node on this host")
    with errors_told("bot"):
        answer = Admin(run_dir).request(
            "POST", f"/v1/rooms/{quote(room, safe='')}/tokens", {"role": "active", "name": "bot"}
        )
    return str(answer["token"])


def _node(
    url: str | None, cert_hash: str | None, room: str | None, run_dir: Path | None, known: bool
) -> tuple[str, str | None]:
    """URL and certificate hash.  With --room the node is on this host: where neither is given it
    says itself where it is, and its certificate lies in its state directory."""
    if room is None or url is not None:
        return url or DEFAULT_URL, cert_hash
    from forwarder import config
    from forwarder.client.quic import hash_of

    with errors_told("bot"):
        url = str(Admin(run_dir).request("GET", "/v1/status")["url"])
    certificate = Path(config.load(None).node.state_dir) / "dev-cert.pem"
    if cert_hash is None and not known and certificate.is_file():
        cert_hash = hash_of(certificate.read_bytes()).hex()
    return url, cert_hash


def _suites(name: str) -> tuple[Suite, ...]:
    from forwarder.rtp.suites import Suite

    suites = {"any": (Suite.GCM, Suite.SHA1), "gcm": (Suite.GCM,), "sha1": (Suite.SHA1,)}
    return suites[_one_of(name, "suite", list(suites))]


def _one_of(value: str, option: str, allowed: list[str]) -> str:
    if value not in allowed:
        _fail(f"--{option} {value}: it must be one of {', '.join(allowed)}")
    return value


def _fail(message: str) -> NoReturn:
    print(f"vcfwd bot: {message}", file=sys.stderr)
    raise typer.Exit(1)
