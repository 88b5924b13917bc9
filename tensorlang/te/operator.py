"""`te.Operator`: a function from tensors to tensors, made by decorating with `@te.compute`.

Called on arrays it compiles for their shapes, once, and runs; called on tensors it becomes stages of their program.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from tensorlang.build import Kernel, build
from tensorlang.errors import InputError, TypeCheckError
from tensorlang.ir.expr import Expr, fail, user_location, var
from tensorlang.ir.stmt import PrimFunc
from tensorlang.schedule import Schedule
from tensorlang.te.annotations import ANONYMOUS, TensorKind, TensorType
from tensorlang.te.primfunc import create_prim_func
from tensorlang.te.tensor import Shape, Tensor, normalise_dim, placeholder

Shapes = Mapping[str, Any]
ScheduleFunction = Callable[[Schedule], Any]


class Operator:
    """A tensor function with typed parameters.

    Attributes:
        name: the function's.
        params: tensor parameters and their types, in order.
        constants: compile-time parameters and their defaults (`inspect.Parameter.empty` if there is none), in order.
        dims: names of the symbolic dimensions, in order of first occurrence.
        source: file:line of the function.
    """

    def __init__(self, fn: Callable[..., Any], local_names: Mapping[str, Any] | None = None):
        functools.update_wrapper(cast(Any, self), fn)
        self.fn = fn
        self.name: str = fn.__name__
        self.source = f"{fn.__code__.co_filename}:{fn.__code__.co_firstlineno}"
        self.signature = inspect.signature(fn)
        self.params: dict[str, TensorType] = {}
        self.constants: dict[str, Any] = {}
        for p in self.signature.parameters.values():
            if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                raise TypeCheckError(f"{self.source}: {self.name}: *{p.name} cannot be typed; name every parameter")
            annotation = self._resolve(p, local_names or {})
            if isinstance(annotation, TensorKind):
                raise TypeCheckError(
                    f"{self.source}: {self.name}: parameter {p.name} has no shape: "
                    f"write te.{annotation}['N'], or te.{annotation}[()] for a scalar"
                )
            if isinstance(annotation, TensorType):
                if p.default is not p.empty:
                    raise TypeCheckError(f"{self.source}: {self.name}: tensor parameter {p.name} has a default")
                self.params[p.name] = annotation
            else:
                self.constants[p.name] = p.default
        if not self.params:
            raise TypeCheckError(
                f"{self.source}: {self.name} has no tensor parameter; annotate one, e.g. x: te.f32['M', 'N']"
            )
        self.dims = tuple(
            dict.fromkeys(d for t in self.params.values() for d in t.dims if isinstance(d, str) and d != ANONYMOUS)
        )
        self._schedules: dict[str, ScheduleFunction] = {}
        self._kernels: dict[Any, Kernel] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        params = [f"{n}: {t}" for n, t in self.params.items()] + [
            n if d is inspect.Parameter.empty else f"{n}={d!r}" for n, d in self.constants.items()
        ]
        return f"te.Operator {self.name}({', '.join(params)})"

    # -- calling ---------------------------------------------------------------------------------------------------
    def __call__(self, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        """On arrays: compile for their shapes (cached) and run. On tensors: inline as stages.

        Args:
            out: an array (or a tuple, for several outputs) to write into.

        Raises:
            InputError: an array does not fit its parameter.
            TypeCheckError: a tensor does not, or the function's body is wrong.
        """
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InputError(f"{user_location()}: {self.name}: {error}") from None
        bound.apply_defaults()
        values = bound.arguments
        tensors = [n for n in self.params if isinstance(values[n], Tensor)]
        if tensors:
            if len(tensors) != len(self.params):
                other = next(n for n in self.params if n not in tensors)
                fail(f"{self.name}: {tensors[0]} is a tensor but {other} is {type(values[other]).__name__}")
            if out is not None:
                fail(f"{self.name}: out= is for calls on arrays")
            return self._inline(values)
        return self._run(values, out)

    def _run(self, values: Mapping[str, Any], out: Any) -> Any:
        arrays = [self._as_array(name, values[name]) for name in self.params]
        constants = {name: values[name] for name in self.constants}
        key = (tuple(a.shape for a in arrays), tuple((n, _key_of(v)) for n, v in constants.items()))
        kernel = self._kernels.get(key)
        if kernel is None:
            with self._lock:
                kernel = self._kernels.get(key)
                if kernel is None:
                    shapes = {name: a.shape for name, a in zip(self.params, arrays, strict=True)}
                    kernel = self._kernels[key] = self.build(shapes=shapes, **constants)
        return kernel(*arrays, out=out) if out is not None else kernel(*arrays)

    def _as_array(self, name: str, value: Any) -> np.ndarray:
        expected = self.params[name]
        if not isinstance(value, np.ndarray):
            if not expected.dims and isinstance(value, bool | int | float | np.generic):
                value = np.asarray(value, expected.dtype.numpy)
            elif hasattr(value, "__dlpack__"):
                value = np.from_dlpack(value)
            else:
                raise InputError(
                    f"{self.name}: {name} is {type(value).__name__}; "
                    f"expected an array of type {expected} (NumPy or DLPack)"
                )
        if value.dtype != expected.dtype.numpy:
            raise InputError(
                f"{self.name}: {name} has dtype {value.dtype}; expected {expected.dtype.numpy} ({expected})"
            )
        return value if value.flags.c_contiguous else np.ascontiguousarray(value)

    def _inline(self, values: Mapping[str, Any]) -> Any:
        for name, expected in self.params.items():
            if values[name].dtype != expected.dtype:
                fail(f"{self.name}: {name} has dtype {values[name].dtype}; expected {expected}; te.cast it in a stage")
        try:
            self._bind_dims({name: values[name].shape for name in self.params})
        except InputError as error:
            fail(str(error))
        result = self.fn(**values)
        self._outputs(result)
        return result

    # -- tracing ---------------------------------------------------------------------------------------------------
    def trace(self, shapes: Shapes | None = None, /, **constants: Any) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Run the function on placeholders: (inputs, outputs).

        Args:
            shapes: sizes by dimension name (`{"M": 128}`) or whole shapes by parameter name (`{"x": (128, "K")}`, where
                None or a string leaves a dimension symbolic). Dimensions left out stay symbolic.
            constants: the compile-time parameters; those left out take their defaults.
        """
        values = self._constant_values(constants)
        sizes = self._sizes(shapes or {})
        inputs = []
        for name, expected in self.params.items():
            dims = [sizes[name, axis] for axis in range(len(expected.dims))]
            inputs.append(placeholder(dims, expected.dtype, name=name))
        result = self.fn(**dict(zip(self.params, inputs, strict=True)), **values)
        return tuple(inputs), self._outputs(result)

    def prim_func(self, shapes: Shapes | None = None, /, **constants: Any) -> PrimFunc:
        """The naive loop nest; arguments as for `trace`."""
        inputs, outputs = self.trace(shapes, **constants)
        return create_prim_func(self.name, inputs, outputs)

    def schedule(self, shapes: Shapes | None = None, /, target: str = "cpu", **constants: Any) -> Schedule:
        """A schedule of the naive loop nest, transformed by the function registered for `target`, if there is one."""
        schedule = Schedule(self.prim_func(shapes, **constants))
        registered = self._schedules.get(target)
        return _applied(registered, schedule) if registered else schedule

    def build(
        self,
        target: str = "cpu",
        shapes: Shapes | None = None,
        schedule: ScheduleFunction | None = None,
        **constants: Any,
    ) -> Kernel:
        """Compile for `target`, by `schedule`, else by the registered schedule, else by the target's default rules."""
        func = self.prim_func(shapes, **constants)
        by = schedule or self._schedules.get(target)
        if by is None:
            return build(func, target=target)
        return build(_applied(by, Schedule(func)), target=target)

    def register_schedule(self, fn: ScheduleFunction, target: str) -> None:
        """Make `fn` the way to compile this operator for `target`; kernels compiled before are forgotten."""
        with self._lock:
            self._schedules[target] = fn
            self._kernels.clear()

    # -- internals -------------------------------------------------------------------------------------------------
    def _constant_values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        if unknown := [n for n in given if n not in self.constants]:
            raise InputError(
                f"{user_location()}: {self.name} has no compile-time parameter {unknown[0]!r}; "
                f"it has: {', '.join(self.constants) or 'none'}"
            )
        values = {**self.constants, **given}
        if missing := [n for n, v in values.items() if v is inspect.Parameter.empty]:
            raise InputError(f"{user_location()}: {self.name}: compile-time parameter {missing[0]!r} has no value")
        return values

    def _sizes(self, shapes: Shapes) -> dict[tuple[str, int], int | Expr]:
        """The size of every dimension of every parameter, by (parameter, position)."""
        if unknown := [n for n in shapes if n not in self.params and n not in self.dims]:
            known = ", ".join((*self.dims, *self.params))
            raise InputError(
                f"{user_location()}: {self.name}: shapes has no dimension or parameter {unknown[0]!r}; known: {known}"
            )
        whole: dict[str, tuple[Any, ...]] = {}
        for name in self.params:
            if name in shapes:
                whole[name] = tuple(None if isinstance(d, str) else d for d in shapes[name])
        bound = self._bind_dims(whole)
        for name in self.dims:
            if name in shapes and name not in self.params:
                size = normalise_dim(shapes[name], f"{self.name}: dimension {name}")
                if name in bound and bound[name] != size:
                    raise InputError(f"{self.name}: dimension {name} is given as {bound[name]} and as {size}")
                bound[name] = size
        symbols: dict[str, int | Expr] = {name: bound[name] if name in bound else var(name) for name in self.dims}
        sizes: dict[tuple[str, int], int | Expr] = {}
        for name, expected in self.params.items():
            for axis, d in enumerate(expected.dims):
                if isinstance(d, int):
                    sizes[name, axis] = d
                elif d == ANONYMOUS:
                    given = whole[name][axis] if name in whole else None
                    sizes[name, axis] = var(f"{name}_{axis}") if given is None else normalise_dim(given, name)
                else:
                    sizes[name, axis] = symbols[d]
        return sizes

    def _bind_dims(self, shapes: Mapping[str, tuple[Any, ...]]) -> dict[str, int | Expr]:
        """The value of each named dimension, from whole shapes by parameter; None is unknown.

        Raises:
            InputError: a shape does not fit its parameter's type, or two give a name different sizes.
        """
        bound: dict[str, int | Expr] = {}
        origin: dict[str, str] = {}
        for name, shape in shapes.items():
            expected = self.params[name]
            if len(shape) != len(expected.dims):
                raise InputError(
                    f"{self.name}: {name} has {len(shape)} dimension(s), shape {_show(shape)}; "
                    f"expected {len(expected.dims)}: {expected}"
                )
            for axis, (d, size) in enumerate(zip(expected.dims, shape, strict=True)):
                if size is None or d == ANONYMOUS:
                    continue
                if isinstance(d, int):
                    if _differ(d, size):
                        raise InputError(
                            f"{self.name}: dimension {axis} of {name} is {size}; expected {d} ({expected})"
                        )
                elif d not in bound:
                    bound[d], origin[d] = normalise_dim(size, f"{self.name}: dimension {d}"), f"{name}.shape[{axis}]"
                elif _differ(bound[d], size):
                    raise InputError(
                        f"{self.name}: dimension {axis} ({d!r}) of {name} is {size}; "
                        f"expected {bound[d]}, the size of {d} in {origin[d]}"
                    )
        return bound

    def _outputs(self, result: Any) -> tuple[Tensor, ...]:
        outputs = tuple(result) if isinstance(result, tuple | list) else (result,)
        for t in outputs:
            if not isinstance(t, Tensor):
                raise TypeCheckError(
                    f"{self.source}: {self.name} returned {type(t).__name__}; return a tensor or a tuple of tensors"
                )
        if not outputs:
            raise TypeCheckError(f"{self.source}: {self.name} returned no tensor")
        return outputs

    def _resolve(self, parameter: inspect.Parameter, local_names: Mapping[str, Any]) -> Any:
        """The parameter's annotation as an object; a string (PEP 563) is evaluated as Python itself would."""
        annotation = parameter.annotation
        if not isinstance(annotation, str):
            return annotation
        closure = dict(zip(self.fn.__code__.co_freevars, self.fn.__closure__ or (), strict=True))
        known = {name: cell.cell_contents for name, cell in closure.items() if _is_filled(cell)}
        try:
            return eval(annotation, self.fn.__globals__, {**local_names, **known})
        except TypeCheckError:
            raise
        except Exception as error:
            if parameter.default is not parameter.empty:
                return annotation  # a compile-time constant, whose type is only documentation
            raise TypeCheckError(
                f"{self.source}: {self.name}: the annotation of {parameter.name}, {annotation!r}, "
                f"cannot be resolved: {error}"
            ) from None


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _differ(a: int | Expr, b: int | Expr) -> bool:
    """Whether two sizes are known to differ; symbolic ones get the benefit of the doubt."""
    return isinstance(a, int | np.integer) and isinstance(b, int | np.integer) and a != b


def _show(shape: Sequence[Any]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def _key_of(value: Any) -> Any:
    """A hashable stand-in for a compile-time constant; 1, 1.0 and True are different."""
    if isinstance(value, tuple | list):
        return (type(value), tuple(_key_of(v) for v in value))
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, Mapping):
        return tuple((k, _key_of(v)) for k, v in value.items())
    try:
        hash(value)
    except TypeError:
        raise InputError(f"a compile-time constant of type {type(value).__name__} has no hash: {value!r}") from None
    return (type(value), value)


def _applied(fn: ScheduleFunction, schedule: Schedule) -> Schedule:
    returned = fn(schedule)
    return returned if isinstance(returned, Schedule) else schedule


def caller_locals() -> dict[str, Any]:
    """The local names where the user stands: an annotation inside a function may name them."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("tensorlang.te"):
        frame = frame.f_back  # type: ignore[assignment]
    return dict(frame.f_locals) if frame is not None and frame.f_locals is not frame.f_globals else {}


__all__ = ["Operator", "ScheduleFunction", "Shape", "Shapes", "caller_locals"]
