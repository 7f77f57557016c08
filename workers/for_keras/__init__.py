"""How Keras reads a sequence, and resumes."""
