"""Results of stages, kept on disk by what they depend on, so that no run computes one twice."""
