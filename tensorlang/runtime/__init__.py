"""What a compiled model needs to run (layer 3): loader, thread pool, context, cache. Imports nothing of the compiler."""
