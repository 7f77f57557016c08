"""The loader: ``prefetch()`` and the front-ends it returns, whose batches workers compute ahead of a plain for loop."""
