"""Data: from files to batches. Sources, decoding, views, mixing, sampling, loading."""
