"""edgedl: compress a trained network, compile it for edge runtimes, and measure what ships.

The package has four rooms, each a top-level folder of the repository:
``edgedl.compress`` (torch lives here), ``edgedl.runtime`` (what a device needs),
``edgedl.models`` (reference models and data) and ``edgedl.tools`` (command line and reports).
"""

__version__ = "0.1.0"
