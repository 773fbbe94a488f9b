"""`conch perf run`: one model under the loads of a named configuration, or of the command line."""
