"""What stands beside a WebAssembly module: the JavaScript that loads it, and what the C functions find in the place of Linux.

A module offers the functions of the C interface (`codegen.library`) with its memory. There are neither files nor threads:
`create_from_file` says that the file cannot be opened, `set_threads` that there is one. What it imports: `aligned_alloc` and
`free`, for the host owns the memory behind the stack, and functions of libm where a model computes in double precision.
"""

from __future__ import annotations

import json
from string import Template

# LLVM text, linked into the module before it is optimised. `open` takes more arguments than it names, as libc's.
NO_SYSTEM = """
define i32 @open(ptr %path, i32 %flags, ...) {
  ret i32 -1
}
define i32 @lseek(i32 %file, i32 %offset, i32 %from) {
  ret i32 -1
}
define ptr @mmap(ptr %at, i32 %nbytes, i32 %protection, i32 %flags, i32 %file, i32 %offset) {
  ret ptr inttoptr (i32 -1 to ptr)
}
define i32 @munmap(ptr %at, i32 %nbytes) {
  ret i32 0
}
define i32 @close(i32 %file) {
  ret i32 0
}
define i32 @pthread_create(ptr %thread, ptr %attributes, ptr %start, ptr %argument) {
  ret i32 1
}
define i32 @pthread_join(i32 %thread, ptr %result) {
  ret i32 0
}
define i32 @pthread_sigmask(i32 %how, ptr %set, ptr %old) {
  ret i32 0
}
define i32 @clock_gettime(i32 %clock, ptr %time) {
  store i64 0, ptr %time, align 4
  ret i32 0
}
define i32 @sysconf(i32 %name) {
  ret i32 1
}
define i32 @pool_worker(ptr %ctx) {
  ret i32 0
}
define i32 @pool_wake(ptr %ctx, i64 %state) {
  ret i32 0
}
define i32 @pool_acquire(ptr %ctx, i64 %state) {
  ret i32 0
}
define i32 @pool_release(ptr %ctx, i64 %state) {
  ret i32 0
}
define i32 @pool_spin(ptr %ctx, i64 %count) {
  ret i32 0
}
"""


def loader_text(prefix: str, stem: str, signature: str) -> str:
    """The JavaScript module, for browsers, Node and other hosts.

    Args:
        prefix: of the module's functions.
        stem: of the module's file name.
        signature: the model's inputs and outputs, for people.
    """
    return Template(_LOADER).substitute(prefix=json.dumps(f"{prefix}_"), stem=stem, signature=signature)


_LOADER = r"""// Runs $stem.wasm, made by tensorlang: $signature
//
//   import { load } from "./$stem.mjs";
//   const model = await load(moduleBytes, weightBytes);       // of $stem.wasm and $stem.weights: ArrayBuffer or Uint8Array
//   const results = model.run({ name: data, ... }, { name: shape, ... });
//   results.name.data, results.name.shape                     // a typed array of its own, and its sizes
//   model.destroy();
//
// Shapes may be left out where all sizes are fixed. What goes wrong is an Error with the library's own text. For buffers that
// stay where they are, call the C functions (see $stem.h) on addresses from allocate(): model.c.run(model.instance, ...).
// Addresses and int32_t are numbers, int64_t are BigInts; views of model.memory.buffer are void once the memory has grown.
const PREFIX = $prefix;
const ARRAYS = {
  bool: Uint8Array, int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array, int32: Int32Array,
  uint32: Uint32Array, int64: BigInt64Array, uint64: BigUint64Array, float16: Uint16Array, bfloat16: Uint16Array,
  float32: Float32Array, float64: Float64Array,
};

// The memory behind the module's own: first fit, neighbours joined when they are given back.
class Heap {
  constructor(memory, start) {
    this.memory = memory;
    this.end = Math.ceil(start / 64) * 64;
    this.holes = []; // [start, size], by start
    this.taken = new Map(); // start -> size
  }

  take(nbytes) {
    const size = Math.max(64, Math.ceil(Number(nbytes) / 64) * 64);
    const k = this.holes.findIndex((hole) => hole[1] >= size);
    let at = this.end;
    if (k >= 0) {
      at = this.holes[k][0];
      if (this.holes[k][1] === size) this.holes.splice(k, 1);
      else this.holes[k] = [at + size, this.holes[k][1] - size];
    } else {
      const missing = at + size - this.memory.buffer.byteLength;
      try {
        if (missing > 0) this.memory.grow(Math.ceil(missing / 65536));
      } catch {
        return 0; // the library reports that it is out of memory
      }
      this.end = at + size;
    }
    this.taken.set(at, size);
    return at;
  }

  give(address) {
    const at = address >>> 0;
    const size = this.taken.get(at);
    if (size === undefined) return; // null
    this.taken.delete(at);
    this.holes.push([at, size]);
    this.holes.sort((a, b) => a[0] - b[0]);
    this.holes = this.holes.reduce((joined, hole) => {
      const last = joined[joined.length - 1];
      if (last && last[0] + last[1] === hole[0]) last[1] += hole[1];
      else joined.push([...hole]);
      return joined;
    }, []);
  }
}

function imported(module, heap) {
  const env = {};
  const fmod = (a, b) => a % b;
  const known = { aligned_alloc: (_, nbytes) => heap().take(nbytes >>> 0), free: (at) => heap().give(at), fmod };
  for (const { name } of WebAssembly.Module.imports(module)) {
    env[name] = known[name] ?? Math[name] ?? Math[name.replace(/f$$/, "")];
    if (env[name] === undefined) throw new Error("this host has no function " + name + ", which the model needs");
  }
  return env;
}

export async function load(moduleBytes, weightBytes) {
  const module = await WebAssembly.compile(moduleBytes);
  let heap;
  const { exports } = await WebAssembly.instantiate(module, { env: imported(module, () => heap) });
  heap = new Heap(exports.memory, exports.__heap_base.value);
  return new Model(exports, heap, new Uint8Array(weightBytes));
}

export class Model {
  constructor(exports, heap, weights) {
    this.memory = exports.memory;
    this.heap = heap;
    this.c = {};
    for (const name of Object.keys(exports)) {
      if (name.startsWith(PREFIX)) this.c[name.slice(PREFIX.length)] = exports[name];
    }
    this.inputs = this.describe("input");
    this.outputs = this.describe("output");
    this.weights = this.allocate(weights.length);
    this.bytes(this.weights, weights.length).set(weights);
    this.instance = 0;
    const place = this.allocate(4);
    const status = this.c.create_from_memory(place, this.weights, BigInt(weights.length));
    this.instance = new DataView(this.memory.buffer).getUint32(place, true);
    this.heap.give(place);
    if (status !== 0) {
      this.heap.give(this.weights);
      this.check(status);
    }
  }

  /** The address of memory for buffers, at a multiple of 64; give it back with release. */
  allocate(nbytes) {
    const at = this.heap.take(nbytes);
    if (at === 0) throw new Error("out of memory");
    return at;
  }

  release(address) {
    this.heap.give(address);
  }

  bytes(address, nbytes) {
    return new Uint8Array(this.memory.buffer, address, nbytes);
  }

  text(address) {
    const all = new Uint8Array(this.memory.buffer);
    return new TextDecoder().decode(all.slice(address, all.indexOf(0, address)));
  }

  check(status) {
    if (status !== 0) throw new Error(this.text(this.c.status_text(status)));
  }

  /** The text of the last failure. */
  lastError() {
    return this.text(this.c.last_error(this.instance));
  }

  /** [{name, dtype, shape}]: sizes, or the names and formulas of open ones. */
  describe(kind) {
    const found = [];
    for (let k = 0; this.c[kind + "_name"](k) !== 0; k++) {
      const shape = [];
      for (let axis = 0; axis < this.c[kind + "_rank"](k); axis++) {
        const size = this.c[kind + "_size"](k, axis);
        shape.push(size < 0n ? this.text(this.c[kind + "_dimension"](k, axis)) : Number(size));
      }
      found.push({ name: this.text(this.c[kind + "_name"](k)), dtype: this.text(this.c[kind + "_dtype"](k)), shape });
    }
    return found;
  }

  /** Run once: typed arrays by input's name, and shapes where they are open. Returns {output: {data, shape}}. */
  run(feeds, shapes = {}) {
    const kept = [];
    const take = (nbytes) => (kept.push(this.allocate(nbytes)), kept[kept.length - 1]);
    const rank = this.outputs.reduce((sum, output) => sum + output.shape.length, 0);
    const told = [];
    try {
      const sizes = [], addresses = [];
      for (const { name, dtype, shape } of this.inputs) {
        const wanted = ARRAYS[dtype], data = feeds[name], given = shapes[name] ?? shape;
        if (!(data instanceof wanted)) throw new Error("input " + name + " takes a " + wanted.name);
        if (given.length !== shape.length || given.some((size) => typeof size === "string")) {
          throw new Error("input " + name + " has open sizes: give its shape (" + shape.join(", ") + ")");
        }
        const count = given.reduce((product, size) => product * Number(size), 1);
        if (data.length !== count) throw new Error("input " + name + " holds " + data.length + " numbers, not " + count);
        sizes.push(...given.map((size) => BigInt(size)));
        const at = take(data.byteLength);
        this.bytes(at, data.byteLength).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
        addresses.push(at);
      }
      const inputs = take(4 * addresses.length), outputs = take(4 * this.outputs.length);
      const inputSizes = take(8 * sizes.length), outputSizes = take(8 * rank);
      let view = new DataView(this.memory.buffer);
      addresses.forEach((at, k) => view.setUint32(inputs + 4 * k, at, true));
      sizes.forEach((size, k) => view.setBigInt64(inputSizes + 8 * k, size, true));
      this.check(this.c.output_shapes(this.instance, inputSizes, outputSizes));
      const places = this.results(outputSizes).map(({ dtype, shape }) =>
        shape.some((size) => size < 0) ? 0 : take(shape.reduce((a, b) => a * b, ARRAYS[dtype].BYTES_PER_ELEMENT)));
      view = new DataView(this.memory.buffer);
      places.forEach((at, k) => view.setUint32(outputs + 4 * k, at, true));
      this.check(this.c.run(this.instance, inputs, inputSizes, outputs, outputSizes, 0, 0n));
      view = new DataView(this.memory.buffer);
      const made = {};
      this.results(outputSizes).forEach(({ name, dtype, shape }, k) => {
        const at = view.getUint32(outputs + 4 * k, true);
        if (places[k] === 0) told.push(at);
        const count = shape.reduce((a, b) => a * b, 1), type = ARRAYS[dtype];
        made[name] = { data: new type(this.memory.buffer.slice(at, at + count * type.BYTES_PER_ELEMENT)), shape };
      });
      return made;
    } finally {
      told.forEach((at) => this.c.free(at));
      kept.forEach((at) => this.heap.give(at));
    }
  }

  results(table) {
    const view = new DataView(this.memory.buffer);
    let at = table - 8;
    const next = () => Number(view.getBigInt64((at += 8), true));
    return this.outputs.map((output) => ({ ...output, shape: output.shape.map(next) }));
  }

  destroy() {
    this.c.destroy(this.instance);
    this.heap.give(this.weights);
    this.instance = this.weights = 0;
  }
}
"""
