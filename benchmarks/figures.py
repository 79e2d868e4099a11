"""What benchmarks share: how figures are told, and how the memory of a piece of work is read (Linux)."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

Result = tuple[str, str, float, str]
"""Case, metric, value, unit."""


def tell(results: Sequence[Result], *, as_json: bool) -> None:
    """Print figures as a table, or as one JSON object."""
    if as_json:
        keys = ("case", "metric", "value", "unit")
        print(json.dumps({"results": [dict(zip(keys, result, strict=True)) for result in results]}))
        return
    cases, metrics = (max((len(result[place]) for result in results), default=0) for place in (0, 1))
    for case, metric, value, unit in results:
        print(f"{case:{cases}}  {metric:{metrics}}  {shown(value):>12} {unit}")


def shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def peak_of(work: Callable[[], object]) -> float:
    """Return the most memory that some work takes in MB, above what was there before."""
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # starts the peak anew
    work()
    return _status("VmHWM") - before


def resident() -> float:
    """Return what the process holds in MB."""
    return _status("VmRSS")


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e6
