"""Change what serves, safely: a version goes live when it is right, a pipeline in one step, and going back is quick."""
