"""Change as objects: components, outlines, features."""
