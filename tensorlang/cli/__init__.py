"""The command line `tensorlang` (layer 8), on typer + rich.

    compile  run  bench  profile  inspect  doctor

Reports go to stdout as tables, or as one JSON object with `--json`; progress and messages go to stderr.
Exit codes: 0 done, 1 the job failed (one message, no traceback), 2 the command was used wrongly.
"""

from __future__ import annotations

from tensorlang.cli.app import app, main

__all__ = ["app", "main"]
