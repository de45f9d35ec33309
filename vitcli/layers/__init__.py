"""Building blocks that know torch and nothing of this project."""
