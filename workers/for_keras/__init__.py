"""Connects sequences to Keras: ``model.fit`` reads their batches from workers, and a callback resumes them."""
