"""Provides ``prefetch()`` and the front-ends it returns: iterables over batches that workers compute in advance."""
