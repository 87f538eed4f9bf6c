# SPDX-License-Identifier: MIT
"""Build the cffi module `forwarder.dataplane._bpf` (thin wrappers over libbpf).

    .venv/bin/python c_helpers/ffi_bpf_build.py

The declarations are taken from src/bpf_user.h, so there is one copy of them. Objects go to
build/ffi_bpf/, the module itself into forwarder/dataplane/.
"""

import re
import shutil
import sys
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "c_helpers" / "src"
SOURCES = ("bpf_user.c", "bpf_netdev.c", "bpf_verdict.c")
BUILD = ROOT / "build" / "ffi_bpf"
TARGET = ROOT / "forwarder" / "dataplane"


def declarations() -> str:
    """The header without its preprocessor lines: the subset of C that cffi parses."""
    text = (SOURCE / "bpf_user.h").read_text()
    return re.sub(r"^#.*$", "", text, flags=re.MULTILINE)


def main() -> int:
    """Compile; answers the exit status."""
    ffi = FFI()
    ffi.cdef(declarations())
    ffi.set_source(
        "forwarder.dataplane._bpf",
        '#include "bpf_user.h"',
        sources=[str(SOURCE / name) for name in SOURCES],
        include_dirs=[str(SOURCE)],
        libraries=["bpf"],
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
