"""The identity and the random numbers of a job, and the task that it runs."""
