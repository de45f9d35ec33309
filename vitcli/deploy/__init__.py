"""From a checkpoint to an artifact for another runtime, and the proof that it computes the same."""
