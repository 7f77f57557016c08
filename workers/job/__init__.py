"""Runs jobs, each the computation of one batch, so that a job draws the same random numbers in any process and run."""
