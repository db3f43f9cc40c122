"""The values of labels and change masks: the same wherever they are stored, counted and drawn."""

UNCHANGED, CHANGED = 0, 1
IGNORE = 255  # of a label: it says nothing of the pixel
NOT_OBSERVED = 255  # of a change mask: at either date
