"""Plain REST: predict, generate, stream, health."""
