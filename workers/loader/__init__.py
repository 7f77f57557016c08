"""Loops over a sequence whose batches are computed by workers."""
