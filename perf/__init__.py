"""Measure what is served, and compare it with what people would run instead."""
