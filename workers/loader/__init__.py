"""A pool behind a for loop."""
