"""The computation of one batch (a job): its identity, its random numbers, and the task that a worker runs for it."""
