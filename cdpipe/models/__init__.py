"""Networks, model folders, and weights that others trained."""
