"""Structured pruning: smaller dense networks, cut along the axes that belong together."""
