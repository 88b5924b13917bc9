"""Sampling at computed positions, and what takes images apart: GridSample, AffineGrid, RoiAlign, DeformConv, Col2Im."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from tensorlang.graph import Expr, Value, as_ints, canonical, product

from .nn import add_bias, spatial
from .node import OnnxNode, size_value
from .registry import onnx_op


@onnx_op("GridSample")
def grid_sample(node: OnnxNode) -> Value:
    mode = node.attr("mode", "linear" if node.version >= 20 else "bilinear")
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    outside = node.choice("padding_mode", "zeros", "border", "reflection")
    aligned = bool(node.attr("align_corners", 0))
    return node.add("grid_sample", node.input(0), node.input(1), mode=mode, outside=outside, align_corners=aligned)


@onnx_op("AffineGrid", since=20)
def affine_grid(node: OnnxNode) -> Value:
    """theta [N, k, k + 1] on the points of [-1, 1]^k, x first: [N, d1, ..., dk, k], for the sizes (N, C, d1, ..., dk)."""
    theta, sizes = node.input(0), node.dims(1, "the sizes", low=1)
    rank = len(sizes) - 2
    if rank not in (2, 3) or theta.type.ndim != 3 or as_ints(theta.shape[1:]) != (rank, rank + 1):
        raise node.fail(f"theta {theta.type} for {len(sizes)} sizes: [N, {rank}, {rank + 1}] is expected")
    batch, spaces = sizes[0], sizes[2:]
    aligned = bool(node.attr("align_corners", 0))
    columns = [_coordinate(node, d, rank - 1 - axis, spaces, aligned, theta) for axis, d in enumerate(reversed(spaces))]
    ones = node.add("expand", node.constant(1, theta), shape=(*spaces, 1))
    points = node.add("reshape", node.add("concat", *columns, ones, axis=rank), shape=(1, product(spaces), rank + 1))
    moved = node.add("matmul", points, node.add("transpose", theta, perm=(0, 2, 1)))
    return node.add("reshape", moved, shape=(batch, *spaces, rank))


def _coordinate(node: OnnxNode, size: Expr, axis: int, spaces: Sequence[Expr], aligned: bool, like: Value) -> Value:
    """Where the points stand along an axis [d1, ..., dk, 1]: at the middles of equal parts of [-1, 1], or from end to end."""
    shape = tuple(size if a == axis else canonical(1) for a in range(len(spaces) + 1))
    place = node.add("cast", node.add("range", start=0, step=1, size=size, dtype="i64"), dtype=like.dtype)
    total = node.add("cast", size_value(node, place, 0), dtype=like.dtype)
    one, two = node.constant(1, like), node.constant(2, like)
    if aligned:
        gaps = node.add("maximum", node.add("sub", total, one), one)  # of one point: it stands at -1
        places = node.add("sub", node.add("div", node.add("mul", place, two), gaps), one)
    else:
        doubled = node.add("add", node.add("mul", place, two), one)
        places = node.add("sub", node.add("div", doubled, total), one)
    return node.add("expand", node.add("reshape", places, shape=shape), shape=(*spaces, 1))


@onnx_op("RoiAlign")
def roi_align(node: OnnxNode) -> Value:
    aligned = node.attr("coordinate_transformation_mode", "half_pixel" if node.version >= 16 else "output_half_pixel")
    sampling = node.attr("sampling_ratio", 0)
    if sampling == 0 and as_ints(node.input(0).shape[2:]) is None:
        raise node.unsupported("as many samples as regions are large, of an image of unknown size")
    return node.add(
        "roi_align",
        *(node.input(i) for i in range(3)),
        height=node.attr("output_height", 1),
        width=node.attr("output_width", 1),
        sampling=sampling,
        spatial_scale=node.attr("spatial_scale", 1.0),
        half_pixel=aligned == "half_pixel",
        mode=node.choice("mode", "avg", "max"),
    )


@onnx_op("DeformConv")
def deform_conv(node: OnnxNode) -> Value:
    """Columns sampled at offsets, times the weights."""
    x, w, offset, mask = node.input(0), node.input(1), node.input(2), node.optional(4)
    if x.type.ndim != 4:
        raise node.unsupported(f"deformable convolution of {x.type}: images only")
    shape = as_ints(w.shape)
    if shape is None or as_ints(x.shape[1:2]) is None:
        raise node.unsupported(f"weights of unknown size {w.type}")
    kernel, group = shape[2:], node.attr("group", 1)
    strides, dilations = spatial(node, "strides", 2), spatial(node, "dilations", 2)
    pads = tuple(node.attr("pads", (0,) * 4))
    attrs = {"kernel": kernel, "strides": strides, "pads": pads, "dilations": dilations}
    inputs = [x, offset] + ([] if mask is None else [mask])
    columns = node.add("deform_columns", *inputs, **attrs, groups=node.attr("offset_group", 1))
    n, (oh, ow) = x.shape[0], offset.shape[2:]
    depth = prod(shape[1:])
    flat = node.add("reshape", columns, shape=(n, group, depth, oh * ow))
    weights = node.add("reshape", w, shape=(1, group, shape[0] // group, depth))
    y = node.add("reshape", node.add("matmul", weights, flat), shape=(n, shape[0], oh, ow))
    return add_bias(node, y, node.optional(3))


@onnx_op("Col2Im")
def col2im(node: OnnxNode) -> Value:
    """Blocks added up where they came from."""
    x = node.input(0)
    image = tuple(int(n) for n in node.known(1, "the image's shape"))
    block = tuple(int(n) for n in node.known(2, "the block's shape"))
    n = len(image)
    if len(block) != n:
        raise node.fail(f"a block of {n} dimensions is expected, not {list(block)}")
    strides, dilations = spatial(node, "strides", n), spatial(node, "dilations", n)
    pads = tuple(node.attr("pads", (0,) * (2 * n)))
    return node.add("col2im", x, image=image, block=block, strides=strides, pads=pads, dilations=dilations)
