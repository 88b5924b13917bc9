"""A compiled model as C files, from its description: what `export` writes and what a C compiler is given.

    classifier.h             the function to call, and what it needs in memory
    classifier.c             kernels, static workspace, the function
    classifier_weights.h .c  the weights as constant arrays
    classifier_main.c        an example: fixed inputs, a checksum of each output
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tensorlang.codegen.c.helpers import needs_math_h, prelude
from tensorlang.codegen.c.printer import C_TYPES, comment
from tensorlang.errors import ArtifactError
from tensorlang.ir.dtype import SCALARS, dtype

_PER_LINE = 8


def model_files(description: Mapping[str, Any], weights: np.ndarray) -> dict[str, str]:
    """The files by name.

    Args:
        description: `model` (a C identifier), `prototype`, `kernels` and `main` (text), `arenas` and `weights` (as
            `graph.program.emit_c` gives them), `inputs` and `outputs` (C name, element type, elements, what it is called
            in the model, shape as text), `checks`, `stack_bytes`.
        weights: the block of bytes that the weights' offsets count in.
    """
    name = description["model"]
    return {
        f"{name}.h": _header(description),
        f"{name}.c": _source(description),
        f"{name}_weights.h": _weights_header(description),
        f"{name}_weights.c": _weights_source(description, weights),
        f"{name}_main.c": _example(description),
    }


def write_files(files: Mapping[str, str], folder: Path) -> list[Path]:
    """Write text files into `folder`, which is made; each appears whole, by rename.

    Raises:
        ArtifactError: it cannot be written.
    """
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            handle, temporary = tempfile.mkstemp(dir=folder, suffix=".tmp")
            try:
                with os.fdopen(handle, "w") as file:
                    file.write(text)
                os.replace(temporary, folder / name)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            paths.append(folder / name)
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be written: {error}") from error
    return paths


def resident_files(description: Mapping[str, Any], weights: np.ndarray) -> dict[str, str | bytes]:
    """The files of a library for this machine: weights as they are, since compilers take minutes for millions of numbers."""
    name = description["model"]
    files: dict[str, str | bytes] = {f"{name}.h": _header(description), f"{name}.c": _source(description)}
    files[f"{name}_weights.h"] = _weights_header(description)
    lines = ["    .section .rodata"]
    for symbol, type_name, offset, count in description["weights"]:
        nbytes = count * SCALARS[type_name].nbytes
        data = f'    .incbin "{name}_weights.bin", {offset}, {nbytes}' if nbytes else "    .zero 8"
        lines += [f"    .globl {symbol}", "    .balign 64", f"{symbol}:", data]
    files[f"{name}_weights.s"] = "\n".join([*lines, '    .section .note.GNU-stack,"",%progbits']) + "\n"
    files[f"{name}_weights.bin"] = weights.tobytes()
    return files


def kernel_file(text: str, name: str) -> str:
    """One kernel as a file of its own, with external linkage and what it calls."""
    text = text.replace(f"static void {name}(", f"void {name}(", 1)
    helpers = prelude(text)
    math = ["#include <math.h>"] if needs_math_h(helpers + text) else []
    declared = text[text.index(f"void {name}(") :].partition(" {")[0] + ";\n"
    return "\n".join([*math, "#include <stdint.h>\n", *([helpers] if helpers else []), declared, text])


def workspace_bytes(description: Mapping[str, Any]) -> int:
    """Static memory that a run uses beside the weights."""
    return sum(count * SCALARS[t].nbytes for t, count in description["arenas"].items())


def weights_bytes(description: Mapping[str, Any]) -> int:
    """Constant memory of the weights."""
    return sum(count * SCALARS[t].nbytes for _, t, _, count in description["weights"])


def array_text(name: str, array: np.ndarray) -> str:
    """A constant array's definition."""
    flat = np.ascontiguousarray(array).reshape(-1)
    words = _words(flat) or ["0"]
    lines = [", ".join(words[n : n + _PER_LINE]) for n in range(0, len(words), _PER_LINE)]
    body = ",\n    ".join(lines)
    return f"const {C_TYPES[dtype(flat.dtype).storage.name]} {name}[{len(words)}] = {{\n    {body}\n}};\n"


def _header(d: Mapping[str, Any]) -> str:
    name, prefix = d["model"], d["model"].upper()
    lines = [
        f"// {name}: a model as plain C99, written by tensorlang. Call {name}_run with arrays of these sizes, row-major:",
        "//",
    ]
    for kind in ("inputs", "outputs"):
        for c_name, type_name, _, given, shape in d[kind]:
            known_as = f" ({given})" if given != c_name else ""
            lines.append(comment(f"//   {kind[:-1]:<6} {c_name}: {type_name}{shape}{known_as}"))
    lines += [
        "//",
        "// Arrays must not overlap. It allocates nothing; its workspace is static, so one call at a time.",
        f"// Beyond C itself it needs {'the functions of math.h (-lm)' if d['math'] else 'no library'}.",
    ]
    if d["checks"]:
        lines.append("// It returns 0, or the number of the condition that does not hold:")
        lines += [comment(f"//   {k}: {text}") for k, text in enumerate(d["checks"], 1)]
    else:
        lines.append("// It returns 0.")
    guard = f"{prefix}_H"
    lines += [
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <stdint.h>",
        "",
        f"#define {prefix}_WORKSPACE_BYTES {workspace_bytes(d)}  // static memory for intermediate results",
        f"#define {prefix}_WEIGHTS_BYTES {weights_bytes(d)}  // constant memory",
        f"#define {prefix}_STACK_BYTES {d['stack_bytes']}  // arrays on the stack, at most, in any kernel",
    ]
    for kind in ("inputs", "outputs"):
        lines += [f"#define {prefix}_{c.upper()}_SIZE {count}  // elements" for c, _, count, _, _ in d[kind]]
    limit = f"{prefix}_WORKSPACE_LIMIT"
    lines += [
        "",
        f"#if defined({limit}) && {limit} < {prefix}_WORKSPACE_BYTES",
        f'#error "{name} needs more workspace than {limit}"',
        "#endif",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        f"{d['prototype'].replace('restrict ', '')};",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _source(d: Mapping[str, Any]) -> str:
    name, text = d["model"], "\n".join([*d["kernels"], d["main"]])
    helpers = prelude(text)
    parts = [f'#include "{name}.h"\n', f'#include "{name}_weights.h"\n']
    if needs_math_h(helpers + text):
        parts.insert(0, "#include <math.h>\n")
    arenas = [f"static {C_TYPES[t]} arena_{t}[{count}];\n" for t, count in d["arenas"].items()]
    return "\n".join(["".join(parts), *([helpers] if helpers else []), *d["kernels"], "".join(arenas), d["main"]])


def _weights_header(d: Mapping[str, Any]) -> str:
    name, guard = d["model"], f"{d['model'].upper()}_WEIGHTS_H"
    declared = [f"extern const {C_TYPES[t]} {n}[{max(1, count)}];" for n, t, _, count in d["weights"]]
    lines = [
        f"// The weights of {name}.",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <stdint.h>",
        "",
        *declared,
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _weights_source(d: Mapping[str, Any], weights: np.ndarray) -> str:
    texts = []
    for name, type_name, offset, count in d["weights"]:
        element = SCALARS[type_name]
        piece = weights[offset : offset + count * element.nbytes]
        texts.append(array_text(name, piece.view(element.numpy)))
    head = "#include <math.h>\n\n" if any("NAN" in t or "INFINITY" in t for t in texts) else ""
    return f'{head}#include "{d["model"]}_weights.h"\n\n' + "\n".join(texts)


def _example(d: Mapping[str, Any]) -> str:
    name = d["model"]
    lines = ["#include <stdio.h>", "", f'#include "{name}.h"', ""]
    tensors = [*d["inputs"], *d["outputs"]]
    lines += [f"static {C_TYPES[_storage(t)]} {c}[{max(1, count)}];" for c, t, count, _, _ in tensors]
    lines += ["", "int main(void) {"]
    for c, t, count, _, _ in d["inputs"]:
        element = SCALARS[_storage(t)]
        value = "(float)(i % 17) / 17.0f - 0.5f" if element.is_float and element.bits >= 32 else "i % 2"
        body = f"        {c}[i] = ({C_TYPES[element.name]})({value});"
        lines += [f"    for (int32_t i = 0; i < {count}; ++i) {{", body, "    }"]
    arguments = ", ".join(c for c, *_ in tensors)
    lines += [f"    const int status = {name}_run({arguments});", "    if (status != 0) {"]
    lines += ['        fprintf(stderr, "status %d\\n", status);', "        return status;", "    }"]
    for c, _, count, _, _ in d["outputs"]:
        lines += [
            f"    double sum_{c} = 0.0;",
            f"    for (int32_t i = 0; i < {count}; ++i) {{",
            f"        sum_{c} += (double){c}[i];",
            "    }",
            f'    printf("{c}: %.6g\\n", sum_{c});',
        ]
    return "\n".join([*lines, "    return 0;", "}"]) + "\n"


def _storage(type_name: str) -> str:
    return dtype(type_name).storage.name


# -- numbers -------------------------------------------------------------------------------------------------------


def _words(flat: np.ndarray) -> list[str]:
    element = dtype(flat.dtype).storage
    if element.is_float and element.bits >= 32:
        suffix = "f" if element.bits == 32 else ""
        words = [_float_word(w, suffix) for w in flat.astype("U32").tolist()]
        for n in np.flatnonzero(np.isnan(flat) & np.signbit(flat)):
            words[n] = "-NAN"
        return words
    if flat.dtype.kind not in "iu":  # the bits of halves, bools and narrow formats
        flat = flat.view(np.uint16 if flat.itemsize == 2 else np.uint8)
    form, lowest = {
        "i32": ("{}", "INT32_MIN"), "u32": ("{}u", ""), "i64": ("INT64_C({})", "INT64_MIN"), "u64": ("UINT64_C({})", ""),
    }.get(element.name, ("{}", ""))  # fmt: skip
    least = np.iinfo(flat.dtype).min
    return [lowest if lowest and w == least else form.format(w) for w in flat.tolist()]


def _float_word(word: str, suffix: str) -> str:
    if word in ("nan", "inf", "-inf"):
        return {"nan": "NAN", "inf": "INFINITY", "-inf": "-INFINITY"}[word]
    return f"{word if '.' in word or 'e' in word else word + '.0'}{suffix}"
