"""A simulated matrix accelerator, and how tensorlang is brought to it: all on public API, as a third party would.

    machine    the hardware: scratchpads, DMA, a 16x16 array of multipliers of bytes, counted in cycles
    tiles      its instructions as tensor intrinsics, and the schedule that uses them
    target     kernel IR -> instruction stream -> simulated run
    generator  which parts of a quantised model go there

    exe = tl.compile("mobilenet_v2_int8.onnx", codegens=[generator])
    with machine.measure() as run:
        exe.run(feeds)
    print(run)                                  # cycles, utilisation of the array, bytes moved
"""

from .generator import generator
from .machine import measure
from .target import target

__all__ = ["generator", "measure", "target"]
