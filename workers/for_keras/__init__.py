"""What Keras needs."""
