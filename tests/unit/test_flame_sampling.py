"""From memory, files and tools to samples: the parts of `vcfwd flame` that need no root."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from forwarder.demo.load import find_generator
from forwarder.errors import HostError
from forwarder.telemetry.flame import bcc_backend, bcc_helper, headers, perf_backend
from forwarder.telemetry.flame.elf import STUB, Elf
from forwarder.telemetry.flame.load import VARIABLE, Load
from forwarder.telemetry.flame.pyspy import Spy
from forwarder.telemetry.flame.stacks import NO_FRAME_POINTER, Top, name_stack
from forwarder.telemetry.flame.symbols import UNKNOWN, Kernel, Place, Space, parse_maps

X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="calls are read on x86-64 only")
PROGRAM = """
#include <unistd.h>
__attribute__((noinline)) int inner(int x) { return getpid() + x; }
__attribute__((noinline)) int outer(int x) { return inner(x) + 1; }
int main(int argc, char **argv) { (void)argv; return outer(argc) == 0; }
"""

# ---- names ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elf")
    (folder / "p.c").write_text(PROGRAM)
    command = ["gcc", "-O1", "-fno-omit-frame-pointer", "-fcf-protection=none", "p.c", "-o", "p"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "p"


def _symbol(program: Path, name: str) -> tuple[int, int]:
    """Address and size of a function, by nm."""
    out = subprocess.run(["nm", "-S", program], capture_output=True, text=True, check=True).stdout
    words = next(line.split() for line in out.splitlines() if line.endswith(f" {name}"))
    return int(words[0], 16), int(words[1], 16)


@X86
def test_names_come_from_the_files_symbols(program: Path) -> None:
    elf = Elf(program)
    start, size = _symbol(program, "inner")
    assert elf.name(start) == elf.name(start + size - 1) == "inner"
    assert elf.name(1 << 40) is None
    # Executable segments of such a program lie at the same place in file and memory.
    begin, length = _symbol(program, "outer")
    after = [at for at in range(begin, begin + length + 1) if elf.call_before(at)[0]]
    assert "inner" in [elf.call_before(at)[1] for at in after]
    assert not elf.call_before(begin)[1]
    after = [at for at in range(start, start + size + 1) if elf.call_before(at)[0]]
    assert STUB in [elf.call_before(at)[1] for at in after]  # getpid, in another file


def test_what_is_no_elf_file_has_no_names(tmp_path: Path) -> None:
    whole = Path(sys.executable).resolve().read_bytes()
    for name, data in (
        ("empty", b""),
        ("text", b"#!/bin/sh\n" * 99),
        ("cut", whole[:200]),
        ("half", whole[: len(whole) // 2]),
        ("wild", whole[:40] + b"\xff" * 24 + whole[64:4096]),
    ):
        (tmp_path / name).write_bytes(data)
        assert Elf(tmp_path / name).name(0x1000) is None
    assert Elf(tmp_path / "missing").name(0) is None


def test_names_that_were_stripped_come_from_the_debug_file(program: Path, tmp_path: Path) -> None:
    start, _ = _symbol(program, "inner")
    bare = tmp_path / "bare"
    subprocess.run(["strip", "-o", bare, program], check=True)
    assert Elf(bare, debug=tmp_path).name(start) != "inner"
    out = subprocess.run(["readelf", "-n", bare], capture_output=True, text=True, check=True).stdout
    build_id = out.partition("Build ID: ")[2].split()[0]
    (tmp_path / build_id[:2]).mkdir()
    file = tmp_path / build_id[:2] / f"{build_id[2:]}.debug"
    subprocess.run(["objcopy", "--only-keep-debug", program, file], check=True)
    assert Elf(bare, debug=tmp_path).name(start) == "inner"
    file.write_bytes(b"\x7fELF\x02\x01" + b"\xff" * 200)
    assert Elf(bare, debug=tmp_path).name(start) != "inner"


def test_a_process_is_read_by_its_map() -> None:
    space = Space(os.getpid())
    assert space.main == os.readlink("/proc/self/exe")
    libc = ctypes.CDLL(None)
    address = ctypes.cast(libc.getpid, ctypes.c_void_p).value
    assert address is not None
    place = space.place(address)
    assert place is not None and "getpid" in place.name and "libc" in place.module
    assert space.place(8) is None
    assert Space(2**22 + 1).place(address) is None  # no such process


def test_maps_keep_only_what_can_run() -> None:
    text = (
        "1000-2000 r--p 00000000 fe:00 1    /usr/bin/a\n"
        "2000-3000 r-xp 00001000 fe:00 1    /usr/bin/a b (deleted)\n"
        "4000-5000 rwxp 00000000 00:00 0 \n"
        "7000-8000 r-xp 00000000 00:00 0    [vdso]\n"
    )
    assert [(r.start, r.offset, r.path) for r in parse_maps(text)] == [
        (0x2000, 0x1000, "/usr/bin/a b"),
        (0x7000, 0, "[vdso]"),
    ]


def test_kernel_names_need_addresses(tmp_path: Path) -> None:
    file = tmp_path / "kallsyms"
    file.write_text("ffff0000 T a\nffff0100 t b\nffff0200 d data\nffff0300 T c [mod]\n")
    kernel = Kernel(file)
    assert [kernel.name(a) for a in (0xFFFF0000, 0xFFFF0150, 0xFFFF0300)] == ["a", "b", "c"]
    assert kernel.name(0xFFFE0000) == kernel.name(0xFFFF0300 + (1 << 20)) == UNKNOWN
    file.write_text("0 T a\n0 t b\n")  # as a kernel shows them to those who may not see
    assert Kernel(file).name(0xFFFF0000) == UNKNOWN


# ---- stacks --------------------------------------------------------------------------------------

MAIN, LIBC, CRYPTO = "/opt/dataplane", "/lib/libc.so.6", "/lib/libIPSec_MB.so.1"


class Memory(Space):
    """A process that is a table: function f of a file at 0x1000 * n, calls as given."""

    def __init__(self, table: dict[int, Place]) -> None:
        self.main = MAIN
        self._table = table

    def place(self, address: int) -> Place | None:
        found = self._table.get(address & ~0xFFF)
        if found is None:
            return None
        behind_call = address & 0xF == 5  # by agreement in these tests
        return Place(found.name, found.module, behind_call, found.calls if behind_call else None)


WORK, DEPART, SEAL, KICK, STALE, START, SENDTO, AES = (0x1000 * n for n in range(1, 9))
MEMORY = Memory(
    {
        WORK: Place("work", MAIN, calls="depart"),
        DEPART: Place("depart", MAIN),
        SEAL: Place("seal", MAIN),
        KICK: Place("kick", MAIN, calls=STUB),
        STALE: Place("stale", MAIN, calls="other"),
        START: Place("[libc.so.6]", LIBC),
        SENDTO: Place("sendto", LIBC),
        AES: Place("aes", CRYPTO),
    }
)


def test_a_walk_through_our_own_code_is_taken_as_it_is() -> None:
    assert name_stack(MEMORY, [DEPART + 1, WORK + 5, START + 5]) == (
        ("[libc.so.6]", "work", "depart"),
        True,
    )
    assert name_stack(MEMORY, []) == ((), True)


def test_the_caller_that_a_leaf_hides_is_found_on_the_stack() -> None:
    # The walk misses `seal`; the old return address of `stale` is of a call to another function.
    top = Top(0x7000_0000, [0, STALE + 5, SEAL + 5, 0x7000_0100, DEPART + 5, 0])
    assert name_stack(MEMORY, [AES, DEPART + 5, WORK + 5, START + 5], top) == (
        ("[libc.so.6]", "work", "depart", "seal", "aes"),
        True,
    )


def test_the_walk_itself_may_tell_who_was_called() -> None:
    # work's call is one to `depart`, whatever else lies on the stack.
    top = Top(0x7000_0000, [SEAL + 5, 0x7000_0100, WORK + 5])
    assert name_stack(MEMORY, [AES, WORK + 5, START + 5], top)[0] == (
        "[libc.so.6]",
        "work",
        "depart",
        "aes",
    )


def test_a_leaf_that_spoilt_the_frame_pointer_is_linked_again() -> None:
    sp = 0x7000_0000
    words = [KICK + 5, 1, 2, sp + 8 * 6, DEPART + 5, 3, sp + 8 * 9, WORK + 5, 4, 0, START + 5]
    stack, complete = name_stack(MEMORY, [SENDTO, 0xDEAD], Top(sp, words))
    assert stack == ("[libc.so.6]", "work", "depart", "kick", "sendto")
    assert complete
    # With less of the stack at hand the way ends earlier, and is known to.
    stack, complete = name_stack(MEMORY, [SENDTO, 0xDEAD], Top(sp, words[:6]))
    assert (stack, complete) == (("depart", "kick", "sendto"), False)


def test_nothing_found_is_said() -> None:
    assert name_stack(MEMORY, [SENDTO, 0xDEAD], Top(0x7000_0000, [1, 2, 3])) == (
        (NO_FRAME_POINTER, "sendto"),
        False,
    )
    assert name_stack(MEMORY, [0xDEAD]) == ((NO_FRAME_POINTER,), False)


# ---- BCC and perf --------------------------------------------------------------------------------


def test_the_helper_and_its_reader_agree_on_the_event(tmp_path: Path) -> None:
    """The struct in the BPF program, measured by a compiler."""
    body = bcc_helper.PROGRAM
    struct = body[body.index("struct event {") : body.index("};", body.index("struct event {")) + 2]
    defines = "\n".join(
        line for line in body.splitlines() if line.startswith("#define ") and "_MAX " in line
    )
    names = [name for name, _ in bcc_backend.Event._fields_]
    source = (
        "#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n"
        "typedef uint64_t u64; typedef uint32_t u32; typedef int32_t s32;\n"
        f'{defines}\n{struct}\nint main(void) {{ printf("%zu", sizeof(struct event));\n'
        + "".join(f'printf(" %zu", offsetof(struct event, {name}));\n' for name in names)
        + "return 0; }\n"
    )
    (tmp_path / "e.c").write_text(source)
    subprocess.run(["gcc", "e.c", "-o", "e"], cwd=tmp_path, check=True)
    out = subprocess.run([tmp_path / "e"], capture_output=True, text=True, check=True).stdout
    here = [ctypes.sizeof(bcc_backend.Event)]
    here += [getattr(bcc_backend.Event, name).offset for name in names]
    assert [int(word) for word in out.split()] == here


def test_a_short_event_is_an_error_not_a_stack() -> None:
    with pytest.raises(HostError, match="12 bytes"):
        list(bcc_backend._events((12).to_bytes(4, "little") + bytes(12)))
    assert list(bcc_backend._events(b"\x01\x02")) == []  # cut in the middle of a size


def test_headers_of_another_kernel_are_made_one_tree(tmp_path: Path) -> None:
    if platform.machine() not in headers._ARCH:
        pytest.skip(f"no name for {platform.machine()} headers")
    arch, flavour = headers._ARCH[platform.machine()]
    root, tree = tmp_path / "root", tmp_path / "tree"
    assert headers.environment(tree, root) is None
    sources = root / "usr/src"
    for version in ("6.1.0-9", "6.1.0-10"):
        own, common = (sources / f"linux-headers-{version}-{kind}" for kind in (flavour, "common"))
        (own / "include/generated").mkdir(parents=True)
        (own / f"arch/{arch}/include/generated").mkdir(parents=True)
        (common / "include/linux").mkdir(parents=True)
        (common / "include/linux" / version).touch()
        (common / f"arch/{arch}/include/asm").mkdir(parents=True)
    (sources / f"linux-headers-9.9-{flavour}").mkdir()  # half of a pair
    for _ in range(2):  # again over what is there
        assert headers.environment(tree, root) == {"BCC_KERNEL_SOURCE": str(tree)}
    assert (tree / "include/linux/6.1.0-10").exists()
    assert (tree / "include/generated").is_dir()
    assert {p.name for p in (tree / f"arch/{arch}/include").iterdir()} == {"asm", "generated"}
    (root / "lib/modules" / platform.release() / "build").mkdir(parents=True)
    assert headers.environment(tree, root) == {}


PERF = """vcfwd-w0  4242/4243   3432.309804123:
\tffffffff81000010 veth_xmit ([kernel.kallsyms])
\tffffffff81000020 do_syscall_64+0x10 ([kernel.kallsyms])
\t    1b0cee __libc_sendto (/usr/lib/x86_64-linux-gnu/libc.so.6)
\t      1234 depart (/opt/vcfwd-dataplane (deleted))
\t      1300 [unknown] (/usr/lib/x86_64-linux-gnu/libc.so.6)

two words 99/100   1.000000005:
\t    12b569 _PyEval_EvalFrameDefault (/usr/bin/python3.11)
\t         1 [unknown] ([unknown])

vcfwd-w0 4242/4243   2.400000000:
\t    1b0cee __libc_sendto (/usr/lib/x86_64-linux-gnu/libc.so.6)

perf 5/5   2.500000000:
\t   bad [unknown] ([unknown])
"""


def test_the_words_of_perf_are_read() -> None:
    first, second, alone, third = perf_backend.parse(PERF.splitlines())
    assert (first.comm, first.pid, first.tid, first.at_ns) == (
        "vcfwd-w0",
        4242,
        4243,
        3432309804123,
    )
    assert first.kernel[-1] == "veth_xmit"
    assert first.user == ("[libc.so.6]", "depart", "sendto") and first.complete
    assert (second.comm, second.tid, second.at_ns) == ("two words", 100, 1_000_000_005)
    assert second.user == ("_PyEval_EvalFrameDefault",)
    assert alone.user == ("sendto",) and not alone.complete
    assert third.user == (NO_FRAME_POINTER,) and not third.complete


# ---- other programs ------------------------------------------------------------------------------

GOOD = 'import sys; print(\'noise\'); print(\'{"event": "ready", "run_dir": "/x"}\', flush=True)'
GOOD += '; sys.stdin.read(); print(\'{"event": "summary", "n": 3}\')'


def test_the_load_is_any_program_that_keeps_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    with Load((sys.executable, "-c", GOOD)) as load:
        assert load.run_dir == Path("/x")
    assert load.summary == {"n": 3}
    monkeypatch.setenv(
        VARIABLE, f'{sys.executable} -c "{GOOD.replace(chr(34), chr(92) + chr(34))}"'
    )
    with Load() as load:
        assert load.run_dir == Path("/x")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys; sys.exit('no root here')", "ended without ready: no root here"),
        ("print('x' * 100000)", "a line without end"),
        ('print(\'{"event": "ready", "run_dir": "/x"}\')', "ended without summary"),
    ],
)
def test_a_load_that_fails_says_why(code: str, words: str) -> None:
    with pytest.raises(HostError, match=words), Load((sys.executable, "-c", code)):
        pass
    with pytest.raises(HostError, match="cannot start"), Load(("/nowhere/load",)):
        pass


def test_a_process_that_is_gone_gives_no_python_but_a_note() -> None:
    spy = Spy(2**22 + 1, 1, 100)
    assert spy.finish().threads == []
    assert spy.note.startswith("no Python frames")


def test_a_load_without_its_generator_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package has no perf/."""
    monkeypatch.setenv("VCFWD_GENERATOR", "/nowhere/generator")
    with pytest.raises(HostError, match=r"no load generator at /nowhere/generator: run `make`"):
        find_generator()
    monkeypatch.setenv("VCFWD_GENERATOR", sys.executable)
    assert find_generator() == sys.executable
