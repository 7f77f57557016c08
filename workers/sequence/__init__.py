"""Sequences of batches, written by users or made from others, and positions in them. Nothing here starts workers."""
