"""How fast is the paired bootstrap of the F1 difference, and does it agree with others?

Compares, in one run on the same data: this project's vectorised cluster bootstrap, a plain loop over NumPy resamples, and
`scipy.stats.bootstrap` (paired, percentile). The last line is JSON: seconds, speed-ups, interval ends, and the machine's load.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable

import numpy as np
from scipy.stats import bootstrap

from violence_ops.evaluation.comparison import f1_difference_interval


def _f1(labels: np.ndarray, verdicts: np.ndarray, axis: int = -1) -> np.ndarray:
    hits, claims = (labels & verdicts).sum(axis), labels.sum(axis) + verdicts.sum(axis)
    return np.divide(2 * hits, claims, out=np.zeros(np.shape(hits)), where=claims > 0)


def _loop(labels: np.ndarray, own: np.ndarray, other: np.ndarray, resamples: int) -> tuple[float, float]:
    generator = np.random.default_rng(0)
    found = []
    for _ in range(resamples):
        index = generator.integers(0, len(labels), len(labels))
        found.append(_f1(labels[index], own[index]) - _f1(labels[index], other[index]))
    low, high = np.quantile(found, [0.05, 0.95])
    return float(low), float(high)


def _scipy(labels: np.ndarray, own: np.ndarray, other: np.ndarray, resamples: int) -> tuple[float, float]:
    found = bootstrap(
        (labels, own, other), lambda a, b, c, axis: _f1(a, b, axis) - _f1(a, c, axis), paired=True, vectorized=True,
        n_resamples=resamples, batch=500, confidence_level=0.9, method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)


def _best(run: Callable[[], tuple[float, float]], repeats: int) -> tuple[float, tuple[float, float]]:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        interval = run()
        times.append(time.perf_counter() - start)
    return min(times), interval


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    generator = np.random.default_rng(1)
    labels = generator.random(arguments.clips) < 0.5
    own, other = (labels ^ (generator.random(arguments.clips) < share) for share in (0.15, 0.2))

    def ours(units: int) -> tuple[float, float]:
        names = [str(i % units) for i in range(arguments.clips)]
        found = f1_difference_interval(labels, own, other, names, confidence=0.9, resamples=arguments.resamples)
        return found.lower, found.upper

    contestants: dict[str, Callable[[], tuple[float, float]]] = {
        "by_clip": lambda: ours(arguments.clips),
        "by_group": lambda: ours(max(2, arguments.clips // 10)),
        "plain_loop": lambda: _loop(labels, own, other, arguments.resamples),
        "scipy": lambda: _scipy(labels, own, other, arguments.resamples),
    }
    result: dict[str, object] = {"clips": arguments.clips, "resamples": arguments.resamples}
    seconds = {}
    for name, run in contestants.items():
        seconds[name], (low, high) = _best(run, arguments.repeats)
        result[name] = {"seconds": round(seconds[name], 4), "interval": [round(low, 4), round(high, 4)]}
        print(f"{name:>10}  {seconds[name]:7.3f} s  {low:+.4f} to {high:+.4f}")
    result |= {
        f"times_faster_than_{name}": round(seconds[name] / seconds["by_clip"], 1) for name in ("plain_loop", "scipy")
    }
    result |= {"load": [round(value, 2) for value in os.getloadavg()], "cpus": os.cpu_count()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
