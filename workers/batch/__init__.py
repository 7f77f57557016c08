"""Batches as bytes in shared memory, and back."""
