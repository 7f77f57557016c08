"""Measure where the time of a loop goes: the figures recorded while it runs, and the report made from them."""
