"""Sparsity: weights that are zero, wherever they are or two of every four, and stay so."""
