"""Other people's files, one format a module, all of them through one gate."""
