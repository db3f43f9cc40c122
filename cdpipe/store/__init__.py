"""Zarr: shards, arrays, groups, stored pairs, their statistics and normalisation."""
