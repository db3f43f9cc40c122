"""Floor 0: plain values. Nothing here opens a file, imports a framework or keeps state."""
