"""From a checkpoint to an artefact that runs elsewhere, and the proof that it computes the same."""
