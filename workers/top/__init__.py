"""``python -m workers.top``: a live view of this user's pools on this machine."""
