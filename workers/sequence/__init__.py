"""Sequences that users write or make from others, and their positions; no workers."""
