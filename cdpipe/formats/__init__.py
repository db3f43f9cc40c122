"""Floor 2: everything that reads or writes a file, one format a module."""
