"""Runs jobs in worker processes, which a server process forks, and exchanges all data with them."""
