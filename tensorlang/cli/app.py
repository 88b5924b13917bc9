"""The commands: options in, a job done, a table or JSON out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import tensorlang as tl
from tensorlang.cli import doctor as doctor_module, jobs
from tensorlang.cli.doctor import human_bytes
from tensorlang.cli.feeds import parse_feed, parse_shapes
from tensorlang.cli.report import JOB_FAILED, WRONG_USAGE, Reporter
from tensorlang.config import FALLBACKS, PRECISIONS


class _Group(TyperGroup):
    """Wrong usage is told in one line, as a failing job is."""

    def main(self, *args: Any, **extra: Any) -> Any:
        if not extra.get("standalone_mode", True):
            return super().main(*args, **extra)
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False})
        except typer.Abort:
            sys.exit(JOB_FAILED)
        except Exception as error:  # the exceptions of typer's parser have no public name; other ones pass
            if getattr(error, "exit_code", None) != WRONG_USAGE or not hasattr(error, "format_message"):
                raise
            command = getattr(getattr(error, "ctx", None), "command_path", "tensorlang")
            text = " ".join(error.format_message().split())
            if text:  # without arguments there was help instead
                typer.echo(f"{command}: {text} (see {command} --help)", err=True)
            sys.exit(WRONG_USAGE)
        sys.exit(code if isinstance(code, int) else 0)


app = typer.Typer(
    name="tensorlang",
    cls=_Group,
    help="Compile deep-learning models and tensor expressions to machine code.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a traceback is a bug of ours, wanted whole and plain in the report
)

def _one_of(known: tuple[str, ...]) -> Callable[[str | None], str | None]:
    """A check of an option: another value is wrong usage."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in known:
            raise typer.BadParameter(f"{value!r}: there is {', '.join(known)}")
        return value

    return check


ModelFile = Annotated[
    Path, typer.Argument(exists=True, dir_okay=True, readable=True, show_default=False, help="A model file.")
]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shapes",
        metavar="NAME=SIZE,...",
        help="Fix dimensions or inputs: batch=1,x=1x3x224x224; batch=1+8 adds programs for these sizes.",
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="NAME=SOURCE", help="NAME=FILE.npy, FILE.npz, random, or random:1x3x8x8. Default: random."),
]
Target = Annotated[str, typer.Option(help="What to compile for.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of random inputs.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads to run on. Default: all usable cores.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on stdout.")]

INPUT_COLUMNS = ("name", "dtype", "shape")


def main() -> None:
    """Entry point of the console script `tensorlang`."""
    app(prog_name="tensorlang")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"tensorlang {tl.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of `tensorlang` itself."""


@app.command("compile")
def compile_command(
    model: ModelFile,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="m.tl, libm.so, libm.a, m.wasm, m (a program) or a folder.")
    ] = None,
    shapes: Shapes = None,
    target: Target = "cpu",
    precision: Annotated[str, typer.Option(metavar="|".join(PRECISIONS), callback=_one_of(PRECISIONS))] = PRECISIONS[0],
    fallback: Annotated[
        str | None,
        typer.Option(metavar="|".join(FALLBACKS), callback=_one_of(FALLBACKS), help="Who runs operators that we do not know."),
    ] = None,
    codegens: Annotated[
        list[str] | None,
        typer.Option("--codegen", metavar="NAME", help="A code generator that takes the parts that it can. Repeatable."),
    ] = None,
    verify: Annotated[
        bool | None,
        typer.Option("--verify/--no-verify", help="Check against onnxruntime. Default: where the result runs on this machine."),
    ] = None,
    json: Json = False,
) -> None:
    """Compile a model, and check that it computes what onnxruntime computes."""
    sizes = parse_shapes(shapes or [])
    if output is not None and not output.is_dir() and output.suffix not in jobs.OUTPUT_SUFFIXES:
        known = ", ".join(suffix for suffix in jobs.OUTPUT_SUFFIXES if suffix)
        raise typer.BadParameter(f"{output}: its suffix tells the form: {known}, or none", param_hint="-o")
    options = {"precision": precision, "fallback": fallback, "codegens": tuple(codegens or ())}
    report = Reporter(json=json)
    with report.errors():
        done = jobs.compile_job(report, model, output, sizes, target, verify, options)
    if json:
        report.emit(done)
        return
    report.table("inputs", INPUT_COLUMNS, [(i["name"], i["dtype"], i["shape"]) for i in done["inputs"]])
    took = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in done["seconds"].items())
    report.out.print(f"{model.name} for {target}: {took}", markup=False)
    if cpu := done["build_cpu_seconds"]:
        parts = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in cpu.items())
        report.out.print(f"CPU seconds of the build: {parts}", markup=False)
    if memory := done["memory"]:
        report.out.print(", ".join(f"{kind} {human_bytes(n)}" for kind, n in memory.items()), markup=False)
    if output is not None:
        report.out.print(f"saved {output} ({human_bytes(done['output']['bytes'])})", markup=False)
    report.out.print(_certificate_line(done["certificate"]), markup=False)


def _certificate_line(certificate: dict[str, Any] | None) -> str:
    if certificate is None:
        return "not verified"
    seeds = " ".join(map(str, certificate["seeds"]))
    sizes = "; ".join(", ".join(f"{n}={s}" for n, s in dims.items()) for dims in certificate["sizes"] if dims)
    return (
        f"verified against {certificate['oracle']}: largest error {certificate['max_error']:.1e}, "
        f"bound {certificate['bound']}, seeds {seeds}" + (f", sizes {sizes}" if sizes else "")
    )


@app.command("run")
def run_command(
    model: ModelFile,
    inputs: Inputs = None,
    output: Annotated[Path | None, typer.Option("--output", help="Folder to write each output to, as .npy.")] = None,
    shapes: Shapes = None,
    target: Target = "cpu",
    threads: Threads = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Run a model once, and show or save its outputs."""
    specs, sizes = [parse_feed(text) for text in inputs or []], parse_shapes(shapes or [])
    report = Reporter(json=json)
    with report.errors():
        _use_threads(threads)
        done = jobs.run_job(report, model, specs, sizes, target, output, seed)
    if json:
        report.emit(done)
        return
    columns = ("name", "dtype", "shape", "min", "max", "mean", "path")
    report.table("outputs", columns, [[o[c] for c in columns] for o in done["outputs"]], right=("min", "max", "mean"))


@app.command("bench")
def bench_command(
    model: ModelFile,
    against: Annotated[str | None, typer.Option(help="Rival to time in the same run: onnxruntime.")] = None,
    inputs: Inputs = None,
    shapes: Shapes = None,
    target: Target = "cpu",
    threads: Threads = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Time a model, side by side with a rival if one is named."""
    if against not in (None, "onnxruntime"):
        raise typer.BadParameter(f"{against!r} is not known; the rival is onnxruntime", param_hint="--against")
    specs, sizes = [parse_feed(text) for text in inputs or []], parse_shapes(shapes or [])
    report = Reporter(json=json)
    with report.errors():
        _use_threads(threads)
        done = jobs.bench_job(report, model, specs, sizes, target, against, seed)
    if json:
        report.emit(done)
        return
    report.table(model.name, ("measure", "value"), _flat(done["result"]), right=("value",))


@app.command("profile")
def profile_command(
    model: ModelFile,
    inputs: Inputs = None,
    shapes: Shapes = None,
    target: Target = "cpu",
    threads: Threads = None,
    seed: Seed = 0,
    roofline: Annotated[bool, typer.Option("--roofline", help="Also what bounds each kernel, and its share of that.")] = False,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the roofline into this image (tensorlang[plot]).")] = None,
    json: Json = False,
) -> None:
    """Time each kernel of a model."""
    specs, sizes = [parse_feed(text) for text in inputs or []], parse_shapes(shapes or [])
    report = Reporter(json=json)
    with report.errors():
        _use_threads(threads)
        done = jobs.profile_job(report, model, specs, sizes, target, seed, roofline, plot)
    if json:
        report.emit(done)
        return
    rows = done["kernels"]
    columns = list(rows[0]) if rows else ["kernel"]
    numbers = [column for column in columns if all(isinstance(row[column], int | float | None) for row in rows)]
    report.table(model.name, columns, [[row[c] for c in columns] for row in rows], right=numbers)
    report.out.print(f"{sum(row.get('calls', 1) for row in rows)} kernel calls, {done['total_ms']:.3f} ms", markup=False)


@app.command("explain")
def explain_command(
    model: ModelFile,
    kernel: Annotated[str | None, typer.Option(help="Only kernels whose names contain this.")] = None,
    machine: Annotated[bool, typer.Option("--machine/--no-machine", help="Read the machine code of every kernel.")] = True,
    shapes: Shapes = None,
    target: Target = "cpu",
    json: Json = False,
) -> None:
    """Say why a model runs as it does: fusion, schedules, vectors and spills of each kernel."""
    sizes = parse_shapes(shapes or [])
    report = Reporter(json=json)
    with report.errors():
        done, text = jobs.explain_job(report, model, sizes, target, kernel or "", machine)
    if json:
        report.emit(done)
        return
    report.out.print(text, markup=False, highlight=False, soft_wrap=True)


@app.command("inspect")
def inspect_command(
    model: ModelFile,
    shapes: Shapes = None,
    source: Annotated[bool, typer.Option("--source", help="Print a compiled model's emitted Python instead.")] = False,
    json: Json = False,
) -> None:
    """Show what a model holds, without compiling it; of a compiled one (.tl, .so) also kernels and memory."""
    sizes = parse_shapes(shapes or [])
    report = Reporter(json=json)
    with report.errors():
        done = jobs.inspect_job(report, model, sizes)
    if json:
        report.emit(done)
        return
    if source:
        if "source" not in done:
            report.note(f"{model} is not compiled; --source shows what a compiled model (.tl, .so) carries")
            raise typer.Exit(JOB_FAILED)
        typer.echo(done["source"])
        return
    for side in ("inputs", "outputs"):
        report.table(side, INPUT_COLUMNS, [(i["name"], i["dtype"], i["shape"]) for i in done[side]])
    if "kernels" in done:
        report.table("kernels", ("kernel", "nodes"), [(k["kernel"], k["nodes"]) for k in done["kernels"]])
        report.table("memory", ("kind", "bytes"), done["memory"].items(), right=("bytes",))
        report.out.print(_certificate_line(done["certificate"]), markup=False)
        return
    report.table("operators", ("operator", "nodes"), done["operators"].items(), right=("nodes",))
    size = human_bytes(done["parameter_bytes"])
    dims = ", ".join(done["dimensions"]) or "none"
    report.out.print(f"{done['nodes']} nodes, {done['parameters']} parameters ({size}), open dimensions: {dims}")


@app.command("doctor")
def doctor_command(
    cache: Annotated[bool, typer.Option("--cache", help="Also list what the build cache holds, by kind.")] = False,
    json: Json = False,
) -> None:
    """Show what this machine has and what is missing, and test that a kernel compiles and runs."""
    report = Reporter(json=json)
    with report.errors():
        found = doctor_module.examine(report, cache_details=cache)
    if json:
        report.emit(found)
    else:
        doctor_module.render(report, found)
    if not found["ok"]:
        raise typer.Exit(JOB_FAILED)


def _use_threads(threads: int | None) -> None:
    if threads is not None:
        tl.set_num_threads(threads)


def _flat(data: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Rows of a nested report: {"ours": {"median": 1}} -> ("ours.median", 1)."""
    rows: list[tuple[str, Any]] = []
    for key, value in data.items():
        rows += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return rows


