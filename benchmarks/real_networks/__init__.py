"""Networks whose trained weights ship inside packages: fidelity, and the runtimes' own tools."""
