"""Answers of a network that does not exist, for tests and benchmarks of reports."""

import numpy as np

from vitcli.evaluators.answers import ImageAnswers


def made_up(num_images: int, class_names: list[str], seed: int = 0, skill: float = 2.0) -> ImageAnswers:
    """Random logits in which the true class is larger by about `skill`; images have names like paths."""
    generator = np.random.default_rng(seed)
    size = len(class_names)
    targets = np.arange(num_images, dtype=np.int64) % size
    logits = generator.normal(size=(num_images, size)).astype(np.float32)
    logits[np.arange(num_images), targets] += generator.normal(skill, 1, num_images).astype(np.float32)
    names = [f"{class_names[target]}/{number:05}.jpg" for number, target in enumerate(targets)]
    return ImageAnswers(names, class_names, targets, logits)
