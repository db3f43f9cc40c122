"""Scores, comparison, audits, area."""
