"""Floor 1: arrays and values in, arrays and values out. No files, no Ray, no global state."""
