"""Known layouts of folders, as catalogs."""
