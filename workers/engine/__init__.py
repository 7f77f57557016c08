"""The engine, which computes batches ahead of the loop in workers, or in the loop itself. It does not know Sequence."""
