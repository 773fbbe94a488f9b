"""Results as one HTML page that a person reads at a glance, and as PNGs."""
