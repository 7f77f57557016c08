"""What a job knows and draws."""
