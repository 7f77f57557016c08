"""Move batches through shared memory: take them apart into bytes, and rebuild them."""
