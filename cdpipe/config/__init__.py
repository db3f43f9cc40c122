"""The YAML file: schema, loading, presets, the original's files."""
