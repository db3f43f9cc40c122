"""A run: its plan, products, manifest, verification."""
