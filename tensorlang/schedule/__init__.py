"""Layer 3: the scheduling language. `Schedule` is its only entry."""

from tensorlang.schedule.schedule import Loop, ProofEntry, Schedule, Stage

__all__ = ["Loop", "ProofEntry", "Schedule", "Stage"]
