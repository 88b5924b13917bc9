"""Arrays as recipes: what is drawn from a seed is the same bytes with every NumPy, so it need not be carried."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod, sqrt
from typing import Any

import numpy as np

ALLOWED = 2e-4  # of the largest magnitude, by which f32 results may differ
SAMPLES = 65536  # elements of a result that are kept for comparison


@dataclass(frozen=True)
class Recipe:
    """How an array is drawn: uniform around `mean` with standard deviation `std`, or whole numbers below `high`.

    Of `dtype` "bfloat16", which NumPy alone does not know, the bits are drawn, as uint16 (f32 cut off)."""

    shape: tuple[int, ...]
    dtype: str
    seed: int
    mean: float = 0.0
    std: float = 1.0
    high: int = 0

    def draw(self) -> np.ndarray:
        """The array, of `shape` and `dtype`."""
        random = np.random.default_rng(self.seed)
        if self.high:
            return random.integers(0, self.high, self.shape, dtype=np.int64).astype(self.dtype)
        values = random.random(self.shape, dtype=np.float32)
        values -= np.float32(0.5)
        values *= np.float32(sqrt(12.0) * self.std)
        values += np.float32(self.mean)
        return (values.view(np.uint32) >> 16).astype(np.uint16) if self.dtype == "bfloat16" else values.astype(self.dtype)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_json(cls, entry: Mapping[str, Any]) -> Recipe:
        return cls(**{**entry, "shape": tuple(entry["shape"])})


def digest(data: np.ndarray) -> str:
    """Of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(data).tobytes()).hexdigest()


def sample_positions(size: int) -> np.ndarray:
    """Flat positions of the elements of a result that are compared: all, or `SAMPLES` drawn ones with the first and last."""
    if size <= SAMPLES:
        return np.arange(size)
    drawn = np.random.default_rng(size).integers(0, size, SAMPLES)
    drawn[:2] = 0, size - 1
    return drawn


def storage(dtype: str) -> str:
    """The type that holds a type here: the bits of a bfloat16 are a uint16."""
    return "uint16" if dtype == "bfloat16" else dtype


def values(found: np.ndarray, dtype: str) -> np.ndarray:
    """The values of an array of `storage(dtype)`."""
    if dtype == "bfloat16":
        return (found.astype(np.uint32) << 16).view(np.float32)
    return found.astype(np.float32) if dtype == "float16" else found


def disagreement(found: np.ndarray, expected: np.ndarray, allowed: float = ALLOWED) -> float:
    """By how many times the allowed difference two results differ at worst; at most 1.0 is agreement.

    Floats may differ by `allowed` of the largest expected magnitude, and 2e-6; anything else not at all.
    NaN agrees with NaN alone, an infinity with its like.
    """
    if expected.dtype.kind != "f":
        return 0.0 if np.array_equal(found, expected) else float("inf")
    finite = np.isfinite(expected)
    same = np.where(finite, True, (found == expected) | (np.isnan(found) & np.isnan(expected)))
    if not same.all() or not np.isfinite(found[finite]).all():
        return float("inf")
    if not finite.any():
        return 0.0
    wanted = expected[finite].astype(np.float64)
    limit = allowed * np.abs(wanted).max() + 2e-6
    return float(np.abs(found[finite].astype(np.float64) - wanted).max() / limit)


def thinned(weights: np.ndarray, recipes: list[Recipe]) -> tuple[np.ndarray, list[dict[str, Any]], str]:
    """Weights without what `recipes` draw: the rest's bytes, where each drawn array lies, and the digest of the whole."""
    places: list[dict[str, Any]] = []
    drawn = np.zeros(weights.nbytes, bool)
    for recipe in recipes:
        data = recipe.draw().view(np.uint8).reshape(-1)
        for start in _find(weights, data):
            drawn[start : start + data.nbytes] = True
            places.append({"start": start, **recipe.as_json()})
    return weights[~drawn], places, digest(weights)


def _find(weights: np.ndarray, data: np.ndarray) -> list[int]:
    """Offsets, multiples of 64, at which `data` lies in `weights`."""
    if data.nbytes > weights.nbytes or data.nbytes < 64:
        return []
    heads = weights[: weights.nbytes // 64 * 64].reshape(-1, 64)
    rows = np.flatnonzero((heads[:, :16] == data[:16]).all(axis=1))
    return [int(r) * 64 for r in rows if np.array_equal(weights[r * 64 : r * 64 + data.nbytes], data)]


def whole(rest: np.ndarray, places: list[dict[str, Any]], nbytes: int, wanted: str) -> np.ndarray:
    """What `thinned` took apart.

    Raises:
        ValueError: the bytes are others than were compiled: this NumPy draws differently.
    """
    weights = np.zeros(nbytes, np.uint8)
    drawn = np.zeros(nbytes, bool)
    for place in places:
        entry = {k: v for k, v in place.items() if k != "start"}
        data = Recipe.of_json(entry).draw().view(np.uint8).reshape(-1)
        weights[place["start"] : place["start"] + data.nbytes] = data
        drawn[place["start"] : place["start"] + data.nbytes] = True
    weights[~drawn] = rest
    if digest(weights) != wanted:
        raise ValueError("the weights drawn here are not those that were compiled: NumPy draws other numbers")
    return weights


def total(shape: tuple[int, ...]) -> int:
    return int(prod(shape))
