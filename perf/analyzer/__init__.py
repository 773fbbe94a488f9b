"""Triton's own perf_analyzer: found or installed, given real inputs, run, and read."""
