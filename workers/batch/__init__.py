"""A batch as bytes in shared memory, and back."""
