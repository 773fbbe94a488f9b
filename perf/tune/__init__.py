"""`conch perf tune`: find better settings for what is served, by measuring, and write them back.

settings.py     what is changed of a config.pbtxt, as values
tunable.py      which of it a model lets us change, read from the repository
knobs.py        the moves from one set of settings to its neighbours, and the rules to begin with
search.py       which of them to try, in what order, how long; knows no server
arena.py        a scratch server on which two sets of settings are measured in turns
write_back.py   the change of the repository, in one safe switch
against_grid.py how the search compares with an exhaustive grid
"""
