"""The connection to Keras: how ``model.fit`` reads a sequence, and a callback that resumes it."""
