"""Pictures of reports (what the loop and its workers did) and of batches of images."""
