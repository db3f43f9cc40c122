"""The command line: parser, screen, verbs."""
