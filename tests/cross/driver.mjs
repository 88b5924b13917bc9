// Runs the `main` of a model compiled for wasm32: node driver.mjs model.wasm weights arena_bytes {-d size}... {-i input}... {-o output bytes}...
import fs from "node:fs";

const [file, weightsFile, arenaBytes, ...rest] = process.argv.slice(2);
const code = new WebAssembly.Module(fs.readFileSync(file));
let free = 0; // memory is handed out in one direction: a program that runs once needs no more
const state = {};
const take = (nbytes) => {
  const at = Math.ceil(free / 64) * 64;
  free = at + Number(nbytes);
  const missing = free - state.memory.buffer.byteLength;
  if (missing > 0) state.memory.grow(Math.ceil(missing / 65536));
  return at;
};
const math = Object.fromEntries(["exp", "log", "sin", "cos", "tan", "tanh", "pow", "log2"].map((n) => [n, Math[n]]));
const { exports } = new WebAssembly.Instance(code, {
  env: { ...math, fmod: (a, b) => a % b, aligned_alloc: (_, nbytes) => take(nbytes), free: () => {} },
});
state.memory = exports.memory;
free = exports.__heap_base.value;

const load = (path) => {
  const bytes = fs.readFileSync(path);
  const at = take(bytes.length);
  new Uint8Array(exports.memory.buffer, at, bytes.length).set(bytes);
  return at;
};
const words = (values) => {
  const at = take(8 * Math.max(1, values.length));
  const view = new DataView(exports.memory.buffer);
  values.forEach((v, n) => view.setBigInt64(at + 8 * n, BigInt(v), true));
  return at;
};
const table = exports.__indirect_function_table;
const slot = (name) => {
  const at = table.grow(1);
  table.set(at, exports[name]);
  return at;
};
const dims = [], inputs = [], outputs = [];
while (rest.length) {
  const option = rest.shift(), value = rest.shift();
  if (option === "-d") dims.push(Number(value));
  if (option === "-i") inputs.push(load(value));
  if (option === "-o") {
    const nbytes = Number(rest.shift());
    outputs.push([value, take(nbytes), nbytes]);
  }
}
const arena = take(Number(arenaBytes) + 64), weights = load(weightsFile);
const context = words([1, slot("pool_parallel_for"), slot("pool_allocate"), slot("pool_free"), 0, 1, 0, 0]);
const tables = [words(inputs), words(outputs.map((o) => o[1])), words([...dims, ...Array(64).fill(0)])];
for (let turn = 0; turn < 2; turn++) {
  const begun = performance.now();
  const status = exports.main(context, BigInt(arena), BigInt(weights), ...tables);
  if (status !== 0) throw new Error(`status ${status}`);
  console.log(`${((performance.now() - begun) / 1000).toFixed(3)} s`);
}
for (const [path, at, nbytes] of outputs) fs.writeFileSync(path, new Uint8Array(exports.memory.buffer, at, nbytes));
