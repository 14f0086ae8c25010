"""Networks drawn at random, compressed, and looked at by somebody else."""
