"""WebAssembly modules through their JavaScript, in Node: the C interface's functions give what Python gives."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import tensorlang as tl
from tensorlang.runtime.executable import Executable
from tests.deploy.libraries import MODELS, parsed
from tests.e2e import models

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is missing")

# Runs the model on each set of feeds, twice, in two instances; then everything is given back.
DRIVER = """
import fs from "node:fs";
import { load } from "./m.mjs";
const feeds = JSON.parse(fs.readFileSync("feeds.json", "utf8"));
const bytes = (path) => new Uint8Array(fs.readFileSync(path));
const models = [await load(bytes("m.wasm"), bytes("m.weights")), await load(bytes("m.wasm"), bytes("m.weights"))];
const typed = (dtype, at) => {
  const content = bytes(at), types = { float32: Float32Array, int64: BigInt64Array, bool: Uint8Array };
  return new types[dtype](content.buffer.slice(content.byteOffset, content.byteOffset + content.length));
};
feeds.forEach((feed, n) => {
  for (const model of [...models, models[0]]) {
    const data = {}, shapes = {};
    for (const { name, dtype, file, shape } of feed) [data[name], shapes[name]] = [typed(dtype, file), shape];
    const found = model.run(data, shapes);
    const told = {};
    for (const [name, result] of Object.entries(found)) {
      told[name] = result.shape;
      fs.writeFileSync("out" + n + name + ".bin", new Uint8Array(result.data.buffer));
    }
    fs.writeFileSync("shapes" + n + ".json", JSON.stringify(told));
  }
});
for (const model of models) {
  if (model.heap.taken.size !== 2) throw new Error("a run left memory behind");
  model.destroy();
  if (model.heap.taken.size !== 0 || model.heap.holes.length !== 1) throw new Error("destroy left memory behind");
}
console.log(JSON.stringify([models[0].inputs, models[0].outputs]));
"""
REFUSALS = """
import fs from "node:fs";
import { load } from "./m.mjs";
const bytes = (path) => new Uint8Array(fs.readFileSync(path));
const said = [];
const refused = async (what) => { try { await what(); said.push("nothing"); } catch (error) { said.push(error.message); } };
const model = await load(bytes("m.wasm"), bytes("m.weights"));
await refused(() => model.run({ x: new Float32Array(32) }));
await refused(() => model.run({ x: new Float64Array(32) }, { x: [2, 16] }));
await refused(() => model.run({ x: new Float32Array(31) }, { x: [2, 16] }));
await refused(() => model.run({ x: new Float32Array(34) }, { x: [2, 17] }));
said.push(model.lastError());
const weights = bytes("m.weights");
weights[9] ^= 1;
await refused(() => load(bytes("m.wasm"), weights));
said.push(model.text(model.c.status_text(model.c.create(model.allocate(4)))));
said.push(model.text(model.c.status_text(model.c.create_from_file(model.allocate(4), model.allocate(4)))));
said.push(model.text(model.c.status_text(model.c.set_threads(model.instance, 2))));
said.push(model.c.set_threads(model.instance, 0) + " " + model.c.threads(model.instance));
console.log(JSON.stringify(said));
"""
# The header's functions on buffers that the caller keeps in the module's memory.
BUFFERS = """
import fs from "node:fs";
import { load } from "./m.mjs";
const bytes = (path) => new Uint8Array(fs.readFileSync(path));
const model = await load(bytes("m.wasm"), bytes("m.weights"));
const { c, instance } = model;
const x = model.allocate(5 * 16 * 4), table = model.allocate(64), sizes = model.allocate(16), nbytes = model.allocate(8);
let view = new DataView(model.memory.buffer);
[5n, 16n].forEach((size, k) => view.setBigInt64(sizes + 8 * k, size, true));
model.check(c.workspace_bytes(instance, sizes, nbytes));
const room = view.getBigInt64(nbytes, true);
const workspace = model.allocate(Number(room)), outputs = [model.allocate(5 * 16 * 4), model.allocate(5 * 16 * 4)];
view = new DataView(model.memory.buffer);
view.setUint32(table, x, true);
outputs.forEach((at, k) => view.setUint32(table + 16 + 4 * k, at, true));
const taken = model.heap.taken.size;
for (const scale of [0, 1]) {
  new Float32Array(model.memory.buffer, x, 80).forEach((_, k, all) => { all[k] = scale * k / 80; });
  model.check(c.run(instance, table, sizes, table + 16, 0, workspace, room));
}
if (model.heap.taken.size !== taken) throw new Error("a run in a given workspace allocated");
const small = c.run(instance, table, sizes, table + 16, 0, workspace, 8n);
const found = [...new Float32Array(model.memory.buffer, outputs[1], 80)];
console.log(JSON.stringify({ found, small: model.text(c.status_text(small)) }));
"""


def node(folder: Path, script: str) -> str:
    (folder / "run.mjs").write_text(script)
    done = subprocess.run(["node", "run.mjs"], cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_feeds(folder: Path, feeds: list[Mapping[str, np.ndarray]]) -> None:
    described = []
    for n, feed in enumerate(feeds):
        described.append([])
        for name, array in feed.items():
            file = f"in{n}{name}.bin"
            (folder / file).write_bytes(np.ascontiguousarray(array).tobytes())
            entry = {"name": name, "dtype": str(array.dtype), "file": file, "shape": list(array.shape)}
            described[-1].append(entry)
    (folder / "feeds.json").write_text(json.dumps(described))


@pytest.fixture(scope="module")
def perceptron() -> Executable:
    return tl.compile(models.perceptron())


@pytest.mark.deploy
@needs_node
@pytest.mark.parametrize("name", ["perceptron", *MODELS])
def test_node_computes_what_python_does(perceptron: Executable, tmp_path: Path, name: str) -> None:
    """Open sizes, control flow, and results whose sizes only a run tells."""
    if name == "perceptron":
        x = np.random.default_rng(0).standard_normal((5, 16), dtype=np.float32)
        exe, feeds = perceptron, [{"x": x}, {"x": x[:1]}]
    else:
        text, feeds = MODELS[name]
        exe = tl.compile(parsed(text))
    files = exe.export_library(tmp_path / "m.wasm", target="wasm32")
    assert [f.name for f in files] == ["m.wasm", "m.weights", "m.h", "m.json", "m.mjs"]
    write_feeds(tmp_path, feeds)
    inputs, outputs = json.loads(node(tmp_path, DRIVER))
    for described, infos in ((inputs, exe.inputs), (outputs, exe.outputs)):
        assert [(d["name"], d["dtype"], len(d["shape"])) for d in described] == [(i.name, i.dtype, len(i.shape)) for i in infos]
    for n, feed in enumerate(feeds):
        shapes = json.loads((tmp_path / f"shapes{n}.json").read_text())
        for output, wanted in exe.run(feed).items():
            assert shapes[output] == list(wanted.shape)
            got = np.frombuffer((tmp_path / f"out{n}{output}.bin").read_bytes(), wanted.dtype).reshape(wanted.shape)
            if wanted.dtype.kind == "f":
                bound = 2e-4 * float(np.abs(wanted).max(initial=0)) + 2e-6
                np.testing.assert_allclose(got, wanted, rtol=0, atol=bound, err_msg=output)
            else:
                np.testing.assert_array_equal(got, wanted, err_msg=output)


@pytest.mark.deploy
@needs_node
def test_refusals_in_node(perceptron: Executable, tmp_path: Path) -> None:
    perceptron.export_library(tmp_path / "m.wasm", target="wasm32")
    open_size, array, count, size, last, weights, bare, file, threads, one = json.loads(node(tmp_path, REFUSALS))
    assert open_size == "input x has open sizes: give its shape (batch, 16)"
    assert array == "input x takes a Float32Array" and count == "input x holds 31 numbers, not 32"
    assert "dimension 1" in size and "16" in size and last == size
    assert weights == bare and "not the weights of this model" in weights
    assert "cannot be opened" in file and threads.startswith("threads have to be") and one == "0 1"


@pytest.mark.deploy
@needs_node
def test_the_c_functions_on_the_callers_buffers(perceptron: Executable, tmp_path: Path) -> None:
    perceptron.export_library(tmp_path / "m.wasm", target="wasm32")
    made = json.loads(node(tmp_path, BUFFERS))
    x = (np.arange(80) / 80).astype(np.float32).reshape(5, 16)
    wanted = perceptron.run({"x": x})["hidden"]
    np.testing.assert_allclose(np.array(made["found"]).reshape(5, 16), wanted, rtol=0, atol=2e-4 * np.abs(wanted).max() + 2e-6)
    assert made["small"] == "the workspace is smaller than workspace_bytes says"


@pytest.mark.deploy
@needs_node
def test_the_documentations_example(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "machines.md").read_text()
    script = text.partition("```js\n")[2].partition("```")[0]
    model = "scorer (float[batch, 64] x) => (float[batch, 64] y) { y = Softmax <axis = -1> (x) }"
    tl.compile(parsed(model)).export_library(tmp_path / "m.wasm", target="wasm32")
    out = node(tmp_path, script)
    assert "dtype: 'float32'" in out and "[ 2, 64 ] 128" in out
