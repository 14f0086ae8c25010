"""Files timed on their runtime while a stage decides."""
