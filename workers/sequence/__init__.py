"""What a user writes, and where it stands; no workers."""
