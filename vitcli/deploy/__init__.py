"""From a checkpoint to an artifact that runs elsewhere, and the proof that it computes the same."""
