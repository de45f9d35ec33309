"""From files to batches: which images there are, in which order they come, and what is done to each."""
