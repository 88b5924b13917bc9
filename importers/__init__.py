"""Model importers, installed as tensorlang.importers: file -> Graph, on tensorlang's public API alone."""
