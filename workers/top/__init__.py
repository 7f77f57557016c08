"""``python -m workers.top``: the pools of this user on this machine, as they work."""
