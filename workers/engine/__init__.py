"""The engine: computes batches in workers, ahead of the loop, or in the loop itself. It does not depend on Sequence."""
