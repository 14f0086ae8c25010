"""What a device needs: read a bundle, run it, measure it. Standard library, numpy and msgspec."""
