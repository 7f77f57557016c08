"""Worker processes, the server process that forks them, and everything that is sent between them and the consumer."""
