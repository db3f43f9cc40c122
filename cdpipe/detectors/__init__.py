"""Detectors of change that need no labels and no training: statistics of both dates of one pair."""
