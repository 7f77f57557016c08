"""Connects sequences to Keras: ``model.fit`` reads batches that workers compute, and a callback lets it resume."""
