"""The engine, which computes batches in workers ahead of the loop, or in the loop itself if there are no workers.
It does not depend on the class Sequence: it knows a batch only by its epoch and index."""
