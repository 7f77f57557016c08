"""Measures where the time of a loop goes: records figures while it runs, and makes a report from them."""
