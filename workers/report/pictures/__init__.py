"""Pictures of reports and of batches."""
