"""Answers that are known already."""
