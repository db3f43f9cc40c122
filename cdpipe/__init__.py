"""cdpipe finds what changed between two dates of satellite imagery, at any size, on Ray."""

__version__ = "0.1.0"
