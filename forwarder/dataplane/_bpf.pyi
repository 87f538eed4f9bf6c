# Built by c_helpers/ffi_bpf_build.py; use it through forwarder.dataplane.bpf, which is typed.
from typing import Any

ffi: Any
lib: Any
