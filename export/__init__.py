"""Turn a trained model into a checked version in the repository.

Read `steps.run` first: it is the whole path. Each `from_X` loads one kind of source; the rest are steps.
"""
