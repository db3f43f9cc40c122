"""Pages, pictures, review."""
