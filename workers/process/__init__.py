"""All that crosses a process boundary."""
