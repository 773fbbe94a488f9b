"""Measure a model over concurrency, batch size and instances, one combination after the other."""
