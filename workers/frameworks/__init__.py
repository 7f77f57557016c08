"""What is known of each framework: one file each, which knows numpy and nothing of ours."""
