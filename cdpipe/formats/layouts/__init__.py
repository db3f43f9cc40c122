"""Finds the pairs in folders as data sets and programs lay them out, for ``cdpipe catalog``."""
