"""Move batches between processes through shared memory; stack, pad, cut and join them."""
