"""Where the time goes: what is noted while a loop runs, and what a report makes of it."""
