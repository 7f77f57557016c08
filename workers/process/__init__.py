"""Worker processes, the server that forks them, and everything that crosses the boundary to them."""
