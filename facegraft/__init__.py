"""facegraft: composite heads by the thousand, and the signed-distance datasets made of them."""

__version__ = "0.1.0"
