"""What it takes to make files: processor time and memory."""
