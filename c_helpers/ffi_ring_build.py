# SPDX-License-Identifier: MIT
"""Build the cffi module `forwarder.dataplane._ring` (the contract with vcfwd-dataplane).

    .venv/bin/python c_helpers/ffi_ring_build.py

The declarations are taken from include/vcfwd/abi.h (its lists expanded by the preprocessor) and
src/ring_user.h, so there is one copy of them; the C compiler, not cffi, says where each field
lies.  Objects go to build/ffi_ring/, the module itself into forwarder/dataplane/.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "c_helpers" / "src"
INCLUDE = ROOT / "c_helpers" / "include"
SOURCES = ("ring_user.c", "shm.c")
BUILD = ROOT / "build" / "ffi_ring"
TARGET = ROOT / "forwarder" / "dataplane"

FORMAT = """
uint64_t vc_shm_format(void *mem, uint64_t sz, const struct vc_ctl_setup *setup, uint32_t worker);
uint64_t vc_index_format(void *mem, uint64_t sz, const struct vc_ctl_setup *setup);
const char *vc_shm_check(const void *mem, uint64_t sz, const struct vc_ctl_setup *setup,
                         uint32_t worker);
const char *vc_index_check(const void *mem, uint64_t sz, const struct vc_ctl_setup *setup);
"""


def expand(header: Path) -> str:
    """The header after the preprocessor, without what it includes from the system."""
    text = re.sub(r"^#include <.*>$", "", header.read_text(), flags=re.MULTILINE)
    done = subprocess.run(
        ["gcc", "-E", "-P", f"-I{INCLUDE}", "-x", "c", "-"],
        input=text,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def declarations() -> str:
    """What cffi parses: structs (laid out by the compiler), enums, numbers, functions."""
    abi = expand(SOURCE / "ring_user.h")
    abi = re.sub(r'"[^"]*"', "", re.sub(r"_Static_assert\([^;]*\);", "", abi))
    abi = re.sub(r"static inline .*?\n\}\n", "", abi, flags=re.DOTALL)
    # Aligned fields are beyond cffi: such a struct is left open, the compiler fills in the rest.
    # All others are compared with the compiler's layout when they are first used.
    abi = re.sub(r"(_Alignas.*?)\n\};", r"\1\n...;\n};", abi, flags=re.DOTALL)
    abi = re.sub(r"_Alignas\(\d+\) ", "", abi)
    raw = (INCLUDE / "vcfwd" / "abi.h").read_text()
    names = re.findall(r"^#define (VC_[A-Z_0-9]+) (?:0x[0-9a-f]+|\d+)u\b", raw, re.MULTILINE)
    return "\n".join(f"#define {name} ..." for name in names) + "\n" + abi + FORMAT


def main() -> int:
    """Compile; answers the exit status."""
    ffi = FFI()
    ffi.cdef(declarations())
    ffi.set_source(
        "forwarder.dataplane._ring",
        '#include "ring_user.h"\n#include "vcfwd/worker.h"\n',
        sources=[str(SOURCE / name) for name in SOURCES],
        include_dirs=[str(SOURCE), str(INCLUDE)],
        extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE"],
    )
    BUILD.mkdir(parents=True, exist_ok=True)
    built = Path(ffi.compile(tmpdir=str(BUILD)))
    TARGET.mkdir(parents=True, exist_ok=True)
    # A new inode: overwriting in place would pull the pages from under a running supervisor.
    part = TARGET / (built.name + ".part")
    shutil.copyfile(built, part)
    part.replace(TARGET / built.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
