"""Figures, and batches, as pictures."""
