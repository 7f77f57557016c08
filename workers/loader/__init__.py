"""The loader: for loops over a sequence whose batches are computed by worker processes."""
