"""Patches, and the backends that run networks on them."""
