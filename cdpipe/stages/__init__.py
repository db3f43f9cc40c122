"""Floor 3: what happens to one unit of work, as plain functions that run with or without Ray."""
