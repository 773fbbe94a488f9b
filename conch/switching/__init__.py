"""How staged versions become the ones that serve: steps on files, each of which leaves the repository whole.

    policy        which versions a config serves, and how to pin it to those
    side_models   a version of a model beside the model, under a name of its own
    journal       what is being changed, written down before the first change
    plan          a stage, or a version that is there, as such a journal
    run           carry a journal out, take it back, or finish it after a crash
    checkpoint    where tests let a run die
    locks         one publish of a model at a time, one switch in a repository at a time

Everything works on files alone; a `Taker` tells a running server after each step, and waits until it did.
"""
