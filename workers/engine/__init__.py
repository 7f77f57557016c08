"""The engine: turns jobs into batches, with workers or without. It does not depend on Sequence."""
