"""From fused groups to one program: every distinct kernel once, and a `main` that calls them on a planned arena.

    group dense_relu(%x, %w)  ->  @kernel("f32* x, f32* w_packed, f32* out")        weights are prepared now, once
    alias reshape(%out): %r       def dense_relu(ctx, x, w_packed, out): ...        an alias is the same memory
    group softmax(%r)
                                  @program("i64 arena, i64 weights, i64* inputs, i64* outputs, i64* dims")
                                  def main(ctx, arena, weights, inputs, outputs, dims):
                                      dense_relu(ctx, inputs[0], weights, arena)
                                      softmax(ctx, arena, outputs[0])

`tree` is the program as statements; `builder` makes them out of groups, bodies of control flow included; `storage` decides
where every value lives; `emit` writes them as Python, and `manifest` describes the result to the runtime.
"""

from tensorlang.graph.program.builder import emit_program
from tensorlang.graph.program.manifest import to_size
from tensorlang.graph.program.tree import Argument, Program, Step

__all__ = ["Argument", "Program", "Step", "emit_program", "to_size"]
