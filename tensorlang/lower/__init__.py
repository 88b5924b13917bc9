"""Layer 3: from a scheduled loop nest to kernel IR, by one visible list of small passes."""

from tensorlang.lower.pipeline import PASSES, Stage, lower, with_prefetch

__all__ = ["PASSES", "Stage", "lower", "with_prefetch"]
