"""The one folder or bucket that holds it all: files, lock, records."""
