"""`python -m tensorlang.cli`: the command line without its installed script."""

from __future__ import annotations

from tensorlang.cli.app import main

main()
