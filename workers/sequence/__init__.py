"""Defines sequences of batches, the methods that make one from another, loops in one process, and saved states."""
