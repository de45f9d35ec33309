"""Collapse monitor: whether a self-supervised network still gives different images different features."""

import math

from torch import nn

from vitcli.evaluators.evaluator import Answers, Evaluator, Setting, ShouldStop, never
from vitcli.evaluators.images import EvalImages, all_features
from vitcli.layers.spread import effective_rank, feature_std

#: images that are looked at, evenly spread over the split
_NUM_IMAGES = 4096
#: collapsed below this share of the largest standard deviation, 1 / sqrt(D), or below this effective rank
_MIN_SPREAD, _MIN_RANK = 0.1, 2.0


class Collapse(Evaluator):
    """Looks at validation images, or at training images where there are none; answers are features (B, D)."""

    metrics = ("feature_std", "effective_rank")

    def __init__(self, setting: Setting) -> None:
        source = setting.train if setting.val is None else setting.val
        assert source is not None
        self.images = EvalImages(setting, source.subset(_NUM_IMAGES))

    def __call__(
        self, network: nn.Module, *, should_stop: ShouldStop = never, answers: Answers | None = None
    ) -> dict[str, float]:
        """feature_std, effective_rank, feature_dim; collapsed: 1 or 0."""
        found = all_features(self.images, network, should_stop=should_stop, answers=answers)
        spread, rank, width = feature_std(found).item(), effective_rank(found).item(), found.shape[1]
        collapsed = spread * math.sqrt(width) < _MIN_SPREAD or rank < _MIN_RANK
        return {"feature_std": spread, "effective_rank": rank, "feature_dim": width, "collapsed": int(collapsed)}

    def rows(self, numbers: dict[str, float]) -> list[tuple[str, str]]:
        largest = 1 / math.sqrt(numbers["feature_dim"])
        return [
            ("feature std", f"{numbers['feature_std']:.4f}  (0: collapsed, {largest:.4f}: spread)"),
            ("effective rank", f"{numbers['effective_rank']:.1f} of {numbers['feature_dim']:,}"),
        ]

    def warning(self, numbers: dict[str, float]) -> str | None:
        if not numbers["collapsed"]:
            return None
        return (
            f"the features have collapsed: std {numbers['feature_std']:.2g} "
            f"(spread: {1 / math.sqrt(numbers['feature_dim']):.2g}), effective rank {numbers['effective_rank']:.1f} "
            f"of {numbers['feature_dim']:,}; lower lr, or use a larger batch or a higher moving-average decay"
        )
