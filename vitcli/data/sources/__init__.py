"""Where images come from, one file per kind of data set.

A source is a subclass of `vitcli.data.source.Source` and a function `open_x(section, split, needs_labels=True)`, listed
in `SOURCES` of `vitcli/catalog.py`. `split` is "train" or "val". The function raises DataError or UsageError when it
cannot open the data, and `MissingSplit` when there is no such split. With `needs_labels=False` it may return images
without labels.
"""
