"""What ``import cdpipe`` offers: a run, and every verb of the command line as a function of it."""
