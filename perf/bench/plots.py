"""The plots of perf/README.md, from the last full record of each suite.

.venv/bin/python -m perf.bench.plots        writes perf/plots/*.png
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from perf.bench.compare import load
from perf.bench.lab import ROOT, PerfError
from perf.bench.results import RESULTS

FOLDER = ROOT / "perf" / "plots"
OWN, OTHER = "#1f5fa8", "#9aa4ad"


def _save(figure: Any, name: str, record: dict[str, Any]) -> Path:
    mode = "quick" if record["quick"] else "full"
    made_on = f"{record['cpu']}, Linux {record['kernel']}, {record['commit']}, {mode}"
    figure.text(0.99, -0.03, made_on, ha="right", fontsize=6, color="gray")
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.png"
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return path


def _bars(axes: Any, names: list[str], spreads: list[dict[str, float]], scale: float) -> None:
    """Medians with their range, best on top."""
    order = sorted(range(len(names)), key=lambda i: spreads[i]["median"])
    for at, i in enumerate(order):
        each = {key: value / scale for key, value in spreads[i].items()}
        error = [[each["median"] - each["min"]], [each["max"] - each["median"]]]
        colour = OWN if names[i].startswith("vcfwd") else OTHER
        axes.barh(at, each["median"], color=colour, xerr=error, error_kw={"elinewidth": 1})
    axes.set_yticks(range(len(order)), [names[i] for i in order])


def capacity(record: dict[str, Any]) -> Path:
    rows = {name: row for name, row in record["rows"].items() if row["out_pps"]}
    figure, axes = plt.subplots(figsize=(7, 0.35 * len(rows) + 1.2))
    _bars(axes, list(rows), [row["out_pps"] for row in rows.values()], 1000)
    axes.set_xlabel("thousand packets out a second, relay on one core, 1:10, 1200 B, loss < 0.1 %")
    return _save(figure, "capacity", record)


def jitter(record: dict[str, Any]) -> Path:
    conditions = record["conditions"]
    figure, panels = plt.subplots(
        2, len(conditions), figsize=(3.6 * len(conditions), 5), sharey=True
    )
    metrics = (
        ("pdv", "packet delay variation p99, ms"),
        ("ipd", "departure spacing error p99, ms"),
    )
    for across, (condition, each) in enumerate(conditions.items()):
        for down, (metric, label) in enumerate(metrics):
            axes = panels[down][across]
            names = list(each["rows"])
            _bars_plain(axes, names, [each["rows"][name][metric]["p99"] / 1e3 for name in names])
            axes.set_xlabel(label, fontsize=8)
        panels[0][across].set_title(condition)
    figure.tight_layout()
    return _save(figure, "jitter", record)


def _bars_plain(axes: Any, names: list[str], values: list[float]) -> None:
    colours = [OWN if name in ("vcfwd", "vcfwd unpaced") else OTHER for name in names]
    axes.barh(range(len(names)), values, color=colours)
    axes.set_yticks(range(len(names)), names, fontsize=7)


def latency(record: dict[str, Any]) -> Path:
    figure, axes = plt.subplots(figsize=(6.5, 3.6))
    for name, curve in record["curves"].items():
        loads = [100 * point["load"] for point in curve["points"]]
        for share, style in (("p50", "-"), ("p99", "--")):
            values = [point["end_to_end"][share] for point in curve["points"]]
            axes.plot(loads, values, style, marker=".", label=f"{name} {share}")
    axes.set_yscale("log")
    axes.set_xlabel("load, % of the relay's own capacity")
    axes.set_ylabel("end to end, us")
    axes.legend(fontsize=6)
    return _save(figure, "latency", record)


def footprint(record: dict[str, Any]) -> Path:
    levels = record["node"]["levels"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.8))
    rooms = [level["rooms"] for level in levels]
    left.plot(rooms, [level["supervisor_mb"] for level in levels], marker=".", color=OWN)
    left.set_ylim(bottom=0)
    left.set_ylabel("supervisor, MB")
    for name, style in (("create_p50_ms", "-"), ("create_p99_ms", "--"), ("join_p50_ms", ":")):
        right.plot(rooms, [level[name] for level in levels], style, marker=".", label=name)
    right.set_ylim(bottom=0)
    right.set_ylabel("ms")
    right.legend(fontsize=7)
    for axes in (left, right):
        axes.set_xlabel("rooms present")
    figure.tight_layout()
    return _save(figure, "footprint", record)


PLOTS = {"capacity": capacity, "jitter": jitter, "latency": latency, "footprint": footprint}


def main() -> int:
    for name, draw in PLOTS.items():
        try:
            print(draw(load(str(RESULTS / f"{name}.jsonl"))))
        except (PerfError, OSError) as error:
            print(f"no plot of {name}: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
