"""``python -m bench models | ops | zoo | half | dynamic | check | null | compile | deploy | markdown | profile | list | fetch``

Exit codes: 0 all well, 1 something failed or disagreed with onnxruntime, 2 wrong usage, 3 slower than ``--limit``
allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import (
    build_cost,
    cache,
    compare,
    deploy,
    dynamic,
    half,
    limits,
    machine,
    markdown,
    measure,
    models,
    operators,
    peers,
    report,
    sweep,
    zoo,
)
from bench.gpu import build as gpu_build

app = typer.Typer(add_completion=False, no_args_is_help=False, pretty_exceptions_show_locals=False, help=__doc__)

Only = Annotated[list[str] | None, typer.Option("--only", help="Names, or parts of names; may be given several times.")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Threads for every peer; default: all cores allowed.")]
Json = Annotated[str | None, typer.Option("--json", help="Write results to this file ('-': standard output, no table).")]
Quick = Annotated[bool, typer.Option("--quick", help="Fewer and shorter blocks: a look, not a measurement.")]
Against = Annotated[list[str] | None, typer.Option("--peer", help="Rivals beside onnxruntime; default: all installed.")]
Symbolic = Annotated[bool, typer.Option("--symbolic", help="Compile with dynamic dimensions left open.")]
Limit = Annotated[float | None, typer.Option("--limit", help="Exit with 3 if any time ratio to onnxruntime exceeds this.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the inputs.")]
Everything = Annotated[bool, typer.Option("--all", help="Also the zoo models that are not in the core list.")]

Target = Annotated[str, typer.Option("--target", help="What tensorlang compiles for; its rivals run on the CPU.")]

DEFAULT_THREADS = machine.cores()


# -- subjects --------------------------------------------------------------------------------------------------------


def select(names: Sequence[str], only: Sequence[str] | None) -> list[str]:
    """The names asked for: exact ones, else all that contain the text; a text that fits nothing is an error."""
    if not only:
        return list(names)
    chosen: list[str] = []
    for text in only:
        found = [text] if text in names else [name for name in names if text in name]
        if not found:
            raise typer.BadParameter(f"nothing is called {text!r}; there are: {', '.join(names)}")
        chosen += [name for name in found if name not in chosen]
    return chosen


def model_subject(name: str, seed: int) -> compare.Subject:
    path = models.path(name)
    model = models.build(name)
    return compare.Subject(name, "model", path, models.inputs(model, seed), flop=models.gflop(model) * 1e9)


def operator_subject(name: str, seed: int, threads: int | None = None) -> compare.Subject:
    """With ``threads``, its limit is measured too."""
    case = operators.get(name)
    # Products of bytes have other peaks than those of f32.
    limit = limits.seconds(case.flop, case.least_bytes, threads) if threads and case.family != "int8" else 0.0
    return compare.Subject(name, case.family, case.path(), case.inputs(seed), case.flop, case.least_bytes, limit)


def zoo_subject(name: str, seed: int) -> compare.Subject:
    """``name`` is a model, or ``model/size``."""
    model, _, size = name.partition("/")
    return compare.Subject(name, "zoo", zoo.path(model), zoo.inputs(model, seed, size or "base"))


def zoo_names(everything: bool) -> list[str]:
    listed = zoo.NAMES if everything else zoo.CORE
    return [name if size == "base" else f"{name}/{size}" for name in listed for size in zoo.sizes(name)]


# -- commands --------------------------------------------------------------------------------------------------------


@app.callback(invoke_without_command=True)
def default(context: typer.Context) -> None:
    """Compare tensorlang with its rivals. Without a command: ``models``."""
    if context.invoked_subcommand is None:
        compare_models()


@app.command("models")
def compare_models(
    only: Only = None,
    threads: Threads = DEFAULT_THREADS,
    json: Json = None,
    quick: Quick = False,
    peer: Against = None,
    symbolic: Symbolic = False,
    limit: Limit = None,
    seed: Seed = 0,
    target: Target = "cpu",
) -> None:
    """The seven standard models."""
    chosen = select(models.NAMES, only)
    subject = partial(model_subject, seed=seed)
    _compare("standard models", chosen, subject, threads, json, quick, peer, symbolic, limit, target)


@app.command("ops")
def compare_operators(
    only: Only = None,
    threads: Threads = DEFAULT_THREADS,
    json: Json = None,
    quick: Quick = False,
    peer: Against = None,
    limit: Limit = None,
    seed: Seed = 0,
    family: Annotated[str | None, typer.Option("--family", help=f"One of {', '.join(operators.FAMILIES)}.")] = None,
    target: Target = "cpu",
    merge: Annotated[bool, typer.Option("--merge", help="Keep the rows of other operators in the --json file.")] = False,
) -> None:
    """The operator suite."""
    names = [name for name, case in operators.CASES.items() if family in (None, case.family)]
    if not names:
        raise typer.BadParameter(f"no family {family!r}; there are: {', '.join(operators.FAMILIES)}")
    chosen = select(names, only)
    subject = partial(operator_subject, seed=seed, threads=threads)
    _compare("operators", chosen, subject, threads, json, quick, peer, False, limit, target, merge)


@app.command("zoo")
def compare_zoo(
    only: Only = None,
    threads: Threads = DEFAULT_THREADS,
    json: Json = None,
    quick: Quick = False,
    peer: Against = None,
    symbolic: Symbolic = False,
    limit: Limit = None,
    seed: Seed = 0,
    everything: Everything = False,
    target: Target = "cpu",
) -> None:
    """Real models from the package index, at every input size (``name/size``)."""
    chosen = select(zoo_names(everything or bool(only)), only)
    _compare("zoo", chosen, lambda name: zoo_subject(name, seed), threads, json, quick, peer, symbolic, limit, target)


@app.command("gpu-build")
def build_for_gpu(
    folder: Annotated[Path, typer.Argument(help="Where artifacts, inputs and expected results go.")],
    only: Only = None,
) -> None:
    """Compile operators and the seven models for a GPU that is elsewhere; `python -m bench.gpu.run FOLDER` measures there."""
    with _typed_errors():
        refused = gpu_build.build(folder, only or ())
    if refused:
        raise typer.Exit(1)


@app.command("null")
def null_test(
    only: Only = None,
    threads: Threads = DEFAULT_THREADS,
    json: Json = None,
    quick: Quick = False,
    seed: Seed = 0,
    peer: Annotated[str, typer.Option("--peer", help="tensorlang, or any rival.")] = "onnxruntime",
) -> None:
    """A peer against itself on the standard models: what shows is noise."""
    plan = measure.QUICK if quick else measure.FULL
    with _typed_errors():
        subject = peers.TensorLang() if peer == "tensorlang" else peers.rivals([peer])[0]
        rows = [
            compare.run_null(model_subject(name, seed), subject, threads, plan)
            for name in _progress(select(models.NAMES, only), "null test")
        ]
    _emit(report.document("null", threads, plan, [report.null_json(row) for row in rows]), json)
    if json != "-":
        report.console().print(report.null_table(rows, subject.name))


@app.command("compile")
def compile_models(
    only: Only = None,
    threads: Threads = DEFAULT_THREADS,
    json: Json = None,
    symbolic: Symbolic = False,
    with_zoo: Annotated[bool, typer.Option("--zoo", help="Also the core zoo models.")] = False,
) -> None:
    """What a build costs in CPU seconds: cold, and warm, each in a fresh process."""
    names = [*models.NAMES, *(zoo.CORE if with_zoo else ())]
    costs = []
    with _typed_errors():
        for name in _progress(select(names, only), "compile"):
            subject = model_subject(name, 0) if name in models.NAMES else zoo_subject(name, 0)
            costs.append(build_cost.measure(subject, threads, static=not symbolic))
            _save(report.document("compile", threads, None, [build_cost.as_json(cost) for cost in costs]), json)
    _emit(report.document("compile", threads, None, [build_cost.as_json(cost) for cost in costs]), json)
    if json != "-":
        report.console().print(build_cost.table(costs))
    if any(cost.error for cost in costs):
        raise typer.Exit(1)


@app.command("deploy")
def measure_deployment(
    only: Only = None,
    threads: Threads = DEFAULT_THREADS,
    json: Json = None,
    quick: Quick = False,
) -> None:
    """Artifacts and libraries beside onnxruntime: size, load time, peak memory; latency through C beside Python's."""
    plan = measure.QUICK if quick else measure.FULL
    found: list[deploy.Deployment] = []
    with _typed_errors():
        for name in _progress(select(models.NAMES, only or deploy.MODELS), "deploy"):
            found.append(deploy.run(model_subject(name, 0), threads, plan))
        installed = {"tensorlang-runtime": deploy.runtime_bytes(), "onnxruntime": deploy.install_bytes("onnxruntime")}
    result = report.document("deploy", threads, plan, [deploy.as_json(one) for one in found])
    _emit({**result, "installed_bytes": installed}, json)
    if json != "-":
        report.console().print(deploy.table(found))


@app.command("half")
def compare_half(
    only: Only = None, threads: Threads = DEFAULT_THREADS, json: Json = None, quick: Quick = False, seed: Seed = 0
) -> None:
    """The standard models in bf16, beside OpenVINO as it comes and our own float32."""
    plan, rows = measure.QUICK if quick else measure.FULL, []
    with _typed_errors():
        for name in _progress(select(models.NAMES, only), "half"):
            rows.append(half.run(model_subject(name, seed), threads, plan))
    _emit(report.document("half", threads, plan, [half.as_json(row) for row in rows]), json)
    if json != "-":
        report.console().print(half.table(rows, threads))


@app.command("dynamic")
def compare_dynamic(
    only: Only = None,
    threads: Threads = DEFAULT_THREADS,
    json: Json = None,
    quick: Quick = False,
    seed: Seed = 0,
    cpu: Annotated[bool, typer.Option("--cpu", help="CPU time, not wall clock; with --threads 1.")] = False,
    limit: Annotated[float | None, typer.Option("--limit", help="Exit with 3 if any ratio exceeds this.")] = None,
) -> None:
    """What open dimensions cost against the same model compiled for the sizes at hand."""
    plan = measure.QUICK if quick else measure.FULL
    default = [name for name in zoo_names(True) if name.partition("/")[0] in dynamic.MODELS]
    costs = []
    with _typed_errors():
        for name in _progress(select(zoo_names(True), only) if only else default, "dynamic"):
            costs.append(dynamic.run(zoo_subject(name, seed), threads, plan, cpu))
    _emit(report.document("dynamic", threads, plan, [dynamic.as_json(cost) for cost in costs]), json)
    if json != "-":
        report.console().print(dynamic.table(costs, threads, cpu))
    if limit is not None and any(cost.ratio.median > limit for cost in costs):
        raise typer.Exit(3)


@app.command("check")
def check_agreement(
    only: Only = None,
    threads: Threads = DEFAULT_THREADS,
    json: Json = None,
    symbolic: Symbolic = False,
    everything: Everything = False,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many seeds.")] = 2,
) -> None:
    """Agreement with onnxruntime alone, untimed: standard models and zoo, all input sizes, several seeds."""
    listed = zoo.NAMES if everything or only else zoo.CORE
    checks: list[sweep.Check] = []
    with _typed_errors():
        for name in _progress(select([*models.NAMES, *listed], only), "check"):
            checks += sweep.run(name, range(seeds), threads, static=not symbolic)
            _save(report.document("check", threads, None, [sweep.as_json(check) for check in checks]), json)
    _emit(report.document("check", threads, None, [sweep.as_json(check) for check in checks]), json)
    if json != "-":
        report.console().print(sweep.table(checks))
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


@app.command("markdown")
def write_markdown() -> None:
    """Put the tables of bench/results/*.json into bench/RESULTS.md."""
    with _typed_errors():
        markdown.write()


@app.command("profile")
def profile(name: str, threads: Threads = DEFAULT_THREADS, seed: Seed = 0) -> None:
    """tensorlang's per-kernel table for a standard model, a zoo model or an operator case."""
    with _typed_errors():
        if name in models.NAMES:
            subject = model_subject(name, seed)
        elif name in operators.NAMES:
            subject = operator_subject(name, seed)
        else:
            subject = zoo_subject(name, seed)
        print(peers.profile(subject.path, subject.feeds, threads))


@app.command("list")
def list_names(kind: Annotated[str, typer.Argument(help="models, ops, zoo or peers.")] = "models") -> None:
    """Names of what can be benchmarked, one a line."""
    known: dict[str, Callable[[], Sequence[str]]] = {
        "models": lambda: models.NAMES,
        "ops": lambda: operators.NAMES,
        "zoo": lambda: zoo_names(True),
        "peers": lambda: [found.name for found in peers.rivals()],
    }
    if kind not in known:
        raise typer.BadParameter(f"no such list: {kind!r}; there are: {', '.join(known)}")
    print("\n".join(known[kind]()))


@app.command("fetch")
def fetch(only: Only = None, everything: Everything = False) -> None:
    """Put standard and zoo models into the cache, so that later runs need no network."""
    with _typed_errors():
        for name in _progress(select([*models.NAMES, *(zoo.NAMES if everything or only else zoo.CORE)], only), "fetch"):
            path = models.path(name) if name in models.NAMES else zoo.path(name)
            print(f"{name}: {path}")


# -- the common part -------------------------------------------------------------------------------------------------


def _compare(
    title: str,
    names: Sequence[str],
    subject: Callable[[str], compare.Subject],
    threads: int,
    json: str | None,
    quick: bool,
    against: list[str] | None,
    symbolic: bool,
    limit: float | None,
    target: str = "cpu",
    merge: bool = False,
) -> None:
    plan = measure.QUICK if quick else measure.FULL
    ours, judge = peers.TensorLang(static=not symbolic, target=target), peers.JUDGE
    with _typed_errors():
        others = [peer for peer in peers.rivals(against) if peer.name != judge.name]
        kept = report.other_rows(json, names) if merge else []
        rows: list[compare.Row] = []
        for name in _progress(names, title):
            rows.append(compare.run(subject(name), ours, judge, others, threads, plan))
            _save(report.document(title, threads, plan, [*kept, *map(report.row_json, rows)]), json)
    _emit(report.document(title, threads, plan, [*kept, *map(report.row_json, rows)]), json)
    if json != "-":
        console = report.console()
        heading = f"{title}, {threads} threads, float32; ratio = our time / onnxruntime's"
        console.print(report.table(rows, ours.name, judge.name, [other.name for other in others], heading))
        console.print(report.summary(rows, judge.name))
    if any(row.verdict in (compare.Verdict.FAILED, compare.Verdict.WRONG) for row in rows):
        raise typer.Exit(1)
    if limit is not None and any(row.ratios[judge.name].median > limit for row in rows):
        raise typer.Exit(3)


def _save(content: dict[str, object], destination: str | None) -> None:
    """After each row of a long run: what is there so far outlives an interruption."""
    if destination != "-":
        _emit(content, destination)


def _emit(content: dict[str, object], destination: str | None) -> None:
    if destination is not None:
        report.write_json(content, destination)


@contextmanager
def _typed_errors() -> Iterator[None]:
    """A missing package or model is one line and exit code 1, not a traceback."""
    try:
        yield
    except cache.BenchError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {error}")
        raise typer.Exit(1) from error


def _progress(names: Sequence[str], title: str) -> Iterator[str]:
    """The names, with a bar on standard error that says which one is on."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=len(names))
        for name in names:
            bar.update(task, description=f"{title}: {name}")
            yield name
            bar.advance(task)


if __name__ == "__main__":
    app()
