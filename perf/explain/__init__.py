"""`conch perf explain`: where a request's time goes, and which settings to change."""
