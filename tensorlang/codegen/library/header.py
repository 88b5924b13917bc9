"""What stands beside a library: the C header, a description for programs (JSON), and an example program."""

from __future__ import annotations

import json
from collections.abc import Sequence
from string import Template
from typing import Any

from tensorlang.codegen.library.interface import C_TYPES, STATUS_TEXTS, Interface, Tensor, show

INTERFACE_VERSION = 1


def header_text(interface: Interface, target: str) -> str:
    """The header: C99 and C++."""
    p, upper = interface.prefix, interface.prefix.upper()
    tensors = [f" *   {_declared(t)}" for t in interface.inputs]
    outputs = [f" *   {_declared(t)}" for t in interface.outputs]
    statuses = [f"#define {upper}_OK 0"] + [f"#define {upper}_{s.name} {int(s)}  /* {t} */" for s, t in STATUS_TEXTS.items()]
    note = "may be NULL: all are fixed" if interface.is_static else "in the order of the inputs, their dimensions in order"
    return Template(_HEADER).substitute(
        p=p, P=upper, model=_comment(interface.model), target=target, inputs="\n".join(tensors) or " *   none",
        outputs="\n".join(outputs), statuses="\n".join(statuses), num_inputs=len(interface.inputs),
        num_outputs=len(interface.outputs), input_dims=interface.input_dims, output_dims=interface.output_dims,
        weights_bytes=interface.weights_bytes, shapes_note=note,
    )  # fmt: skip


def signature(interface: Interface) -> str:
    """The model's name, inputs and outputs in one line that may stand in a comment."""
    ins, outs = (", ".join(map(_declared, tensors)) for tensors in (interface.inputs, interface.outputs))
    return f"{_comment(interface.model)}({ins}) -> {outs}"


def _declared(tensor: Tensor) -> str:
    dims = ", ".join(show(d) for d in tensor.shape)
    note = "   (allocated by the library)" if tensor.told else ""
    return _comment(f"{tensor.name}: {tensor.dtype}[{dims}]{note}")


def _comment(text: str) -> str:
    return text.replace("*/", "* /").replace("/*", "/ *").replace("\n", " ").replace("\\", "/").replace("??", "? ?")


_HEADER = """/* $model for $target, made by tensorlang.
 *
 * Inputs:
$inputs
 * Outputs:
$outputs
 *
 * An instance ($p) has threads of its own (none but the caller's at first). Any number of threads may call run on one
 * instance at a time; they share nothing but its pool, and who finds that busy computes alone. set_threads and destroy must
 * not run beside other calls on the same instance; destroy is called once, and before the library is unloaded (dlclose). After
 * fork, the child makes instances of its own, and leaves its parent's alone: those have no threads there.
 *
 * Functions return 0 or a status; status_text says what it means. Nothing is printed, and no memory is kept but the
 * instance's own.
 */
#ifndef ${P}_H
#define ${P}_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

$statuses
/* 1, 2, ...: the inputs do not fit the model */

#define ${P}_NUM_INPUTS $num_inputs
#define ${P}_NUM_OUTPUTS $num_outputs
#define ${P}_INPUT_DIMS $input_dims    /* sizes in input_shapes: $shapes_note */
#define ${P}_OUTPUT_DIMS $output_dims  /* sizes in output_shapes */
#define ${P}_WEIGHTS_BYTES INT64_C($weights_bytes)

typedef struct $p $p;

/* An instance on the weights inside this library; or on a copy of them (the file <library>.weights) in memory that begins at a
 * multiple of 64 and outlives the instance; or in a file, which is mapped. *instance is NULL after a failure. */
int32_t ${p}_create($p **instance);
int32_t ${p}_create_from_memory($p **instance, const void *weights, int64_t nbytes);
int32_t ${p}_create_from_file($p **instance, const char *path);
void ${p}_destroy($p *instance);

/* How many threads share the work of a run, the caller included; 0: one per processor. threads gives -1 for NULL. */
int32_t ${p}_set_threads($p *instance, int32_t count);
int32_t ${p}_threads(const $p *instance);

/* The shapes of all outputs, one after another, for these input shapes; -1 where only a run can tell. */
int32_t ${p}_output_shapes($p *instance, const int64_t *input_shapes, int64_t *output_shapes);

/* Memory that a run with these input shapes needs. */
int32_t ${p}_workspace_bytes($p *instance, const int64_t *input_shapes, int64_t *nbytes);

/* Run. inputs and outputs are tables of pointers to dense row-major data in the caller's memory. The library sets those
 * outputs whose shapes only a run can tell: give them back with free. output_shapes may be NULL. workspace may be NULL: then
 * it is allocated for the time of the run. */
int32_t ${p}_run($p *instance, const void *const *inputs, const int64_t *input_shapes, void **outputs, int64_t *output_shapes,
    void *workspace, int64_t workspace_nbytes);
void ${p}_free(void *output);

/* The text of a status, and of the instance's last failure. */
const char *${p}_status_text(int32_t status);
const char *${p}_last_error(const $p *instance);

/* Descriptions: dtype by NumPy's name; size -1 where it is open, dimension then its name or formula ("" where it is fixed).
 * NULL or -1 for what there is not. */
const char *${p}_input_name(int32_t input);
const char *${p}_input_dtype(int32_t input);
int32_t ${p}_input_rank(int32_t input);
int64_t ${p}_input_size(int32_t input, int32_t axis);
const char *${p}_input_dimension(int32_t input, int32_t axis);
const char *${p}_output_name(int32_t output);
const char *${p}_output_dtype(int32_t output);
int32_t ${p}_output_rank(int32_t output);
int64_t ${p}_output_size(int32_t output, int32_t axis);
const char *${p}_output_dimension(int32_t output, int32_t axis);

#ifdef __cplusplus
}
#endif

#endif
"""


def describe_json(interface: Interface, manifest: dict[str, Any]) -> str:
    """The description: tensors, sizes, statuses, and what the library needs of a machine."""

    def tensor(t: Tensor) -> dict[str, Any]:
        return {"name": t.name, "dtype": t.dtype, "shape": list(t.shape), "allocated_by_library": t.told}

    content = {
        "interface": INTERFACE_VERSION,
        "model": interface.model,
        "prefix": interface.prefix,
        "triple": manifest["triple"],
        "cpu_features": manifest["cpu_features"],
        "dims": list(interface.dims),
        "inputs": [tensor(t) for t in interface.inputs],
        "outputs": [tensor(t) for t in interface.outputs],
        "workspace_bytes": ["add", interface.arena, 64],
        "weights_bytes": interface.weights_bytes,
        "statuses": {str(int(s)): t for s, t in STATUS_TEXTS.items()},
    }
    return json.dumps(content, indent=1) + "\n"


def example_text(interface: Interface, header: str, shapes: Sequence[Sequence[int]], weights_file: str = "") -> str:
    """A program that feeds fixed inputs and prints a checksum per output.

    Args:
        shapes: of the inputs.
        weights_file: where the weights are, if not inside.
    """
    p = interface.prefix
    lines = []
    for k, (tensor, shape) in enumerate(zip(interface.inputs, shapes, strict=True)):
        count = 1
        for d in shape:
            count *= d
        lines += _fill(k, tensor, count)
    flat = [d for shape in shapes for d in shape] or [0]
    prints, frees = [], [f"  free((void *)inputs[{k}]);" for k in range(len(interface.inputs))]
    start = 0
    for k, tensor in enumerate(interface.outputs):
        rank = len(tensor.shape)
        lines += _room(k, tensor, start)
        nbytes = f"elements(shapes + {start}, {rank}) * {tensor.itemsize}"
        prints.append(f"  report({p}_output_name({k}), outputs[{k}], {nbytes});")
        frees.append(f"  {p}_free(outputs[{k}]);" if tensor.told else f"  free(outputs[{k}]);")
        start += rank
    create = f'{p}_create_from_file(&model, "{weights_file}")' if weights_file else f"{p}_create(&model)"
    return Template(_EXAMPLE).substitute(
        p=p, header=header, create=create, sizes=", ".join(map(str, flat)), num_inputs=max(1, len(interface.inputs)),
        num_outputs=max(1, len(interface.outputs)), num_sizes=max(1, interface.output_dims), fill="\n".join(lines),
        prints="\n".join(prints), frees="\n".join(frees),
    )  # fmt: skip


def _fill(k: int, tensor: Tensor, count: int) -> list[str]:
    c_type = C_TYPES.get(tensor.dtype, "uint8_t")
    if tensor.dtype in ("float32", "float64"):
        value = f"({c_type})(next(&seed) % 2001) / 1000 - 1"
    elif tensor.dtype in ("float16", "bfloat16"):
        value = f"(uint16_t)({'0x3c00' if tensor.dtype == 'float16' else '0x3f80'} - next(&seed) % 512)"
    else:
        value = f"({c_type})(next(&seed) % 2)"
    elements = count if tensor.dtype in C_TYPES else count * tensor.itemsize
    return [
        f"  {{ /* {_comment(tensor.name)} */",
        f"    {c_type} *data = allocate((size_t){elements} * sizeof *data);",
        f"    for (size_t i = 0; i < (size_t){elements}; i++) data[i] = {value};" if elements else "    (void)data;",
        f"    inputs[{k}] = data;",
        "  }",
    ]


def _room(k: int, tensor: Tensor, start: int) -> list[str]:
    if tensor.told:
        return [f"  outputs[{k}] = NULL;"]
    return [f"  outputs[{k}] = allocate(elements(shapes + {start}, {len(tensor.shape)}) * {tensor.itemsize});"]


_EXAMPLE = """/* Feeds fixed inputs to the model and prints a checksum per output.
 *
 *     cc -std=c99 -o example ${p}_main.c -L. -l<model> -lpthread
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "$header"

static uint32_t next(uint32_t *seed) {
  *seed = *seed * 1664525u + 1013904223u;
  return *seed >> 8;
}

static void *allocate(size_t nbytes) {
  void *memory = malloc(nbytes ? nbytes : 1);
  if (memory == NULL) {
    fputs("out of memory\\n", stderr);
    exit(1);
  }
  return memory;
}

static size_t elements(const int64_t *shape, int rank) {
  size_t count = 1;
  for (int k = 0; k < rank; k++) count *= (size_t)shape[k];
  return count;
}

/* FNV-1a over the bytes */
static void report(const char *name, const void *data, size_t nbytes) {
  uint64_t hash = UINT64_C(14695981039346656037);
  for (size_t k = 0; k < nbytes; k++) hash = (hash ^ ((const uint8_t *)data)[k]) * UINT64_C(1099511628211);
  printf("%s %zu bytes %016" PRIx64 "\\n", name, nbytes, hash);
}

static void expect(int32_t status) {
  if (status != 0) {
    fprintf(stderr, "%s\\n", ${p}_status_text(status));
    exit(1);
  }
}

int main(void) {
  const int64_t sizes[] = {$sizes};
  int64_t shapes[$num_sizes] = {0};
  const void *inputs[$num_inputs] = {NULL};
  void *outputs[$num_outputs] = {NULL};
  uint32_t seed = 1;
  $p *model;
  (void)seed;
  (void)next;

  expect($create);
  expect(${p}_output_shapes(model, sizes, shapes));
$fill
  expect(${p}_run(model, inputs, sizes, outputs, shapes, NULL, 0));
$prints
$frees
  ${p}_destroy(model);
  return 0;
}
"""
