"""python -m perf SUITE [--json] [--quick]; python -m perf compare A B

Suites: capacity, matrix, jitter, latency, footprint, control.  Each appends its record to
perf/results/SUITE.jsonl (--no-keep: does not); compare reads two such files, or one line of each
as FILE:N (counted from 1; -1 is the last, the default).
"""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from forwarder.errors import VcfwdError
from perf.bench import results
from perf.bench.compare import compare, load, show
from perf.bench.lab import PerfError, say

SUITES = ("capacity", "matrix", "jitter", "latency", "footprint", "control")


def run_suite(args: argparse.Namespace) -> int:
    """Runs one suite, keeps and prints its record."""
    try:
        suite = importlib.import_module(f"perf.bench.{args.suite}")
        facts = results.facts()
        if facts["busy_before"] > 0.05:
            say(f"others use {facts['busy_before']:.0%} of this machine: take ratios, not rates")
        with tempfile.TemporaryDirectory(prefix="perf-") as folder:
            results.freeze(Path(folder))
            found = suite.run(args.quick)
        record: dict[str, Any] = {"suite": args.suite, "quick": args.quick, **facts}
        record |= found
    except (PerfError, VcfwdError) as error:
        print(f"perf {args.suite}: {error}", file=sys.stderr)
        return 1
    if not args.no_keep:
        results.keep(args.suite, record)
    if args.json:
        print(json.dumps(record))
    else:
        show({k: v for k, v in record.items() if not isinstance(v, dict | list)})
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m perf",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="suite", required=True)
    for name in SUITES:
        verb = verbs.add_parser(name)
        verb.add_argument("--json", action="store_true", help="the whole record, as JSON")
        verb.add_argument("--quick", action="store_true", help="fewer rows, rounds and seconds")
        verb.add_argument("--no-keep", action="store_true", help="do not append to perf/results")
    verb = verbs.add_parser("compare")
    verb.add_argument("a")
    verb.add_argument("b")
    verb.add_argument("--json", action="store_true")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was made is taken away again
    if args.suite == "compare":
        try:
            found = compare(load(args.a), load(args.b))
        except (PerfError, OSError, ValueError) as error:
            print(f"perf compare: {error}", file=sys.stderr)
            return 1
        print(json.dumps(found)) if args.json else show(found)
        return 0
    return run_suite(args)


if __name__ == "__main__":
    sys.exit(main())
