"""One module a verb of the command line: show the plan, run the stage, show the summary."""
