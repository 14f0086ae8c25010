"""Programs that print the numbers the documentation quotes; see docs/benchmarks.md."""
