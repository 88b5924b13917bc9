"""The work behind the commands that take a model. Each job returns the dict that `--json` prints.

What a job needs of the rest of the package, through the facade: `tl.compile`, `tl.load`, `tl.load_model` and
`tl.benchmark`, and of an executable `inputs`, `run`, `profile`, `save`, `certificate` and `build_report`.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorlang as tl
from tensorlang.cli.feeds import FeedSpec, InputInfo, Shapes, make_feeds
from tensorlang.cli.report import Reporter, finite
from tensorlang.errors import InputError
from tensorlang.runtime.sizes import describe

if TYPE_CHECKING:
    import numpy as np

SAVED_SUFFIXES = (".tl", ".so")
OUTPUT_SUFFIXES = (".tl", ".so", ".a", ".wasm", "")  # what -o may name


def compile_job(
    report: Reporter,
    model: Path,
    output: Path | None,
    shapes: Shapes,
    target: str,
    verify: bool | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Compile `model`, check it against the oracle unless told not to, and save it when `output` is given.

    `options`: more of `tl.compile`'s arguments; `verify`: None means where it runs on this machine.
    """
    with report.step("compile", f"compiling {model.name} for {target}" + ("" if verify is False else ", then checking it")):
        exe = tl.compile(str(model), target=target, shapes=shapes or None, verify=verify, **options)
    if output is not None:
        with report.step("save", f"writing {output}"):
            if output.suffix != ".tl" or output.is_dir():
                exe.export_library(output)
            else:
                exe.save(str(output))
    return {
        "model": str(model),
        "target": target,
        "shapes": shapes,
        "inputs": [_tensor(info) for info in inputs_of(exe)],
        "output": None if output is None else {"path": str(output), "bytes": _size(output)},
        "certificate": None if verify is False else plain(exe.certificate),
        "build_cpu_seconds": plain(exe.build_report),
        "host_nodes": [list(node) for node in exe.host_nodes],
        "memory": exe.memory,
        "seconds": report.seconds,
    }


def run_job(
    report: Reporter,
    model: Path,
    specs: Sequence[FeedSpec],
    shapes: Shapes,
    target: str,
    output: Path | None,
    seed: int,
) -> dict[str, Any]:
    """Run `model` once and describe its outputs; with `output`, also write each to `output/NAME.npy`."""
    exe = load_or_compile(report, model, shapes, target)
    feeds = make_feeds(inputs_of(exe), specs, seed)
    with report.step("run", f"running {model.name}"):
        outputs = exe.run(feeds)
    paths = write_outputs(outputs, output) if output is not None else {}
    return {
        "model": str(model),
        "seed": seed,
        "outputs": [_describe(name, array) | {"path": paths.get(name)} for name, array in outputs.items()],
        "seconds": report.seconds,
    }


def bench_job(
    report: Reporter,
    model: Path,
    specs: Sequence[FeedSpec],
    shapes: Shapes,
    target: str,
    against: str | None,
    seed: int,
) -> dict[str, Any]:
    """Time `model`, side by side with `against` on the same inputs where one is named."""
    exe = load_or_compile(report, model, shapes, target)
    inputs = inputs_of(exe)
    feeds = make_feeds(inputs, specs, seed)
    if against is not None and model.suffix in SAVED_SUFFIXES:
        raise InputError(f"{against} cannot run a saved {model.suffix} file; give the model it was compiled from")
    with report.step("benchmark", f"timing {model.name}" + (f" against {against}" if against else "")):
        result = tl.benchmark(exe, [feeds[i.name] for i in inputs], against=str(model) if against else None)
    return {"model": str(model), "against": against, "result": plain(result), "seconds": report.seconds}


def profile_job(
    report: Reporter,
    model: Path,
    specs: Sequence[FeedSpec],
    shapes: Shapes,
    target: str,
    seed: int,
    roofline: bool = False,
    plot: Path | None = None,
) -> dict[str, Any]:
    """Time each kernel of `model`; `plot`: where its roofline is drawn."""
    exe = load_or_compile(report, model, shapes, target)
    feeds = make_feeds(inputs_of(exe), specs, seed)
    with report.step("profile", f"profiling {model.name}"):
        profile = exe.profile(feeds, roofline=roofline or plot is not None)
    if plot is not None:
        profile.plot(plot)
    limits = {"peak_gflops": profile.peak_gflops, "peak_gbps": profile.peak_gbps} if profile.peak_gflops else {}
    rows = plain(profile.rows)
    return {"model": str(model), "total_ms": profile.total_ms, **limits, "kernels": rows, "seconds": report.seconds}


def explain_job(
    report: Reporter, model: Path, shapes: Shapes, target: str, kernel: str, machine: bool
) -> tuple[dict[str, Any], str]:
    """Why `model` runs as it does, of the kernels whose names contain `kernel`: as plain data, and as text."""
    exe = load_or_compile(report, model, shapes, target)
    with report.step("explain", f"reading {model.name}"):
        found = exe.explain(machine=machine)
    chosen = dataclasses.replace(found, kernels=tuple(k for k in found.kernels if kernel in k.name))
    return {"model": str(model), **plain(chosen), "seconds": report.seconds}, str(chosen)


def inspect_job(report: Reporter, model: Path, shapes: Shapes) -> dict[str, Any]:
    """What `model` holds, without compiling it: inputs, outputs, open dimensions, operators, parameters; of a compiled
    one also its kernels, memory and emitted source."""
    if model.suffix in SAVED_SUFFIXES:
        return _inspect_saved(report, model, shapes)
    with report.step("load", f"reading {model.name}"):
        graph = tl.load_model(str(model), shapes=shapes or None)
    counts: dict[str, int] = {}
    for node in graph.nodes:
        counts[node.op] = counts.get(node.op, 0) + 1
    arrays = [value.constant for value in graph.constants() if value.constant is not None]
    return {
        "model": str(model),
        "inputs": [_tensor(_info(value.name, value.dtype.numpy, value.shape)) for value in graph.inputs],
        "outputs": [
            _tensor(_info(name, value.dtype.numpy, value.shape))
            for name, value in zip(graph.output_names or [v.name for v in graph.outputs], graph.outputs, strict=True)
        ],
        "dimensions": sorted(graph.dims),
        "nodes": len(graph.nodes),
        "operators": dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        "parameters": sum(int(array.size) for array in arrays),
        "parameter_bytes": sum(int(array.nbytes) for array in arrays),
        "seconds": report.seconds,
    }


def _inspect_saved(report: Reporter, model: Path, shapes: Shapes) -> dict[str, Any]:
    exe = load_or_compile(report, model, shapes, "cpu")
    return {
        "model": str(model),
        "inputs": [_tensor(info) for info in inputs_of(exe)],
        "outputs": [_tensor(_info(o.name, o.dtype, o.shape)) for o in exe.outputs],
        "dimensions": list(exe.dims),
        "memory": {kind: size if isinstance(size, int) else describe(size) for kind, size in exe.memory_map.items()},
        "kernels": exe.steps,
        "certificate": plain(exe.certificate),
        "source": exe.source,
        "seconds": report.seconds,
    }


def load_or_compile(report: Reporter, model: Path, shapes: Shapes, target: str) -> Any:
    """An executable from a saved file (`*.tl`, `*.so`), or compiled from a model file.

    Raises:
        InputError: `shapes` for a saved file, whose shapes were fixed when it was compiled.
    """
    if model.suffix in SAVED_SUFFIXES:
        if shapes:
            raise InputError(f"{model} is compiled already; --shapes belongs to `tensorlang compile`")
        with report.step("load", f"loading {model.name}"):
            return tl.load(str(model))
    with report.step("compile", f"compiling {model.name} for {target}"):
        return tl.compile(str(model), target=target, shapes=shapes or None)


def inputs_of(exe: Any) -> list[InputInfo]:
    """The inputs of an executable, in order."""
    return [_info(i.name, i.dtype, i.shape) for i in exe.inputs]


def _info(name: str, dtype: Any, shape: Sequence[Any]) -> InputInfo:
    dims = tuple(int(text) if (text := str(dim)).isdigit() else text for dim in shape)
    return InputInfo(name, str(dtype), dims)


def _tensor(info: InputInfo) -> dict[str, Any]:
    return {"name": info.name, "dtype": info.dtype, "shape": list(info.shape)}


def _describe(name: str, array: np.ndarray) -> dict[str, Any]:
    numeric = array.size > 0 and array.dtype.kind not in "OSU"
    values = array.astype("float64") if numeric else None
    return {
        "name": name,
        "dtype": str(array.dtype),
        "shape": list(array.shape),
        "min": None if values is None else finite(float(values.min())),
        "max": None if values is None else finite(float(values.max())),
        "mean": None if values is None else finite(float(values.mean())),
    }


def write_outputs(outputs: Mapping[str, np.ndarray], folder: Path) -> dict[str, str]:
    """Write each array to `folder/NAME.npy` and return the paths by name. Files appear by rename, never half-written.

    A character that is unsafe in a file name becomes `_`; names that would then collide get a number.
    """
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[str, str] = {}
    for name, array in outputs.items():
        stem = re.sub(r"[^\w.-]", "_", name).lstrip(".") or "output"
        path, number = folder / f"{stem}.npy", 1
        while str(path) in paths.values():
            path, number = folder / f"{stem}_{number}.npy", number + 1
        handle, temporary = tempfile.mkstemp(dir=folder, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, array, allow_pickle=False)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        paths[name] = str(path)
    return paths


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def plain(value: Any) -> Any:
    """`value` as dicts, lists and scalars: dataclasses become dicts, NaN and infinity None, arrays lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return finite(value)
    return value if isinstance(value, str | int | bool | None) else str(value)
