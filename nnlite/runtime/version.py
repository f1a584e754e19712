"""The version, apart from the package's own imports."""

__version__ = "0.1.0"
