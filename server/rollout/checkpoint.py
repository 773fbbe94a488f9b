"""Places where a test lets a command die: those of conch.switching, under the rollout's name."""

from conch.switching.checkpoint import reached, set_hook

__all__ = ["reached", "set_hook"]
