"""Default schedules, installed as tensorlang.schedules: Schedule -> Schedule, on tensorlang's public API alone."""
