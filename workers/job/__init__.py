"""Runs a job, the computation of one batch, with random numbers that are the same in every process and every run."""
