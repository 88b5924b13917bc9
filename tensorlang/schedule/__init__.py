"""Layer 3: the scheduling language. `Schedule` is its only entry."""

from tensorlang.schedule.handles import Stage
from tensorlang.schedule.schedule import Schedule
from tensorlang.schedule.state import Loop, ProofEntry

__all__ = ["Loop", "ProofEntry", "Schedule", "Stage"]
