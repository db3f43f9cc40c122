"""From the catalog to stored blocks."""
