"""Keeps the results of functions, for ``sequence.cache()``: in shared memory, or as files in a folder."""
