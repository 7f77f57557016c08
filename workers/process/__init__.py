"""Runs jobs in worker processes, forked by a small server process, and exchanges all data with the workers."""
