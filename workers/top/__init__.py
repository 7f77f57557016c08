"""The command ``python -m workers.top``: a live view of this user's pools of workers on this machine."""
