"""Floor 4: the only importers of Ray; thin wrappers that spread the stages' functions over workers."""
