"""Sequences of batches, written by users or made from other sequences, and their positions. Starts no workers."""
