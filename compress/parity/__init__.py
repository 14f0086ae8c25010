"""Certificates: how each file differs from the torch graph it was made from."""
