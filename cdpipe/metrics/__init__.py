"""Counts, scores of them, their intervals and reliability."""
