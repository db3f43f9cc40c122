"""Loss, samples, loop."""
