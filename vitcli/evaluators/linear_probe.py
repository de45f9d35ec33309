"""Linear probe: the accuracy of a linear classifier trained on frozen features.

SGD as in solo-learn's offline probe: momentum 0.9, learning rate 0.3 for 256 images, no weight decay, 100 epochs, a
tenth of the rate from 60 % and again from 80 % of the epochs on. The features are those of the evaluation transform,
computed once. They are standardized by the mean and standard deviation of the training images, as by the BatchNorm
before MAE's probe (arXiv 2111.06377, A.1); without that, one learning rate cannot serve features of any scale.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitcli.data.batch import Batch
from vitcli.data.streams import stream_seed
from vitcli.distributed import any_rank, from_main
from vitcli.evaluators.evaluator import Answers, Evaluator, Setting, ShouldStop, Stopped, never, with_labels
from vitcli.evaluators.images import EvalImages, all_features, feature_batches
from vitcli.evaluators.top1 import Counts
from vitcli.recipe.schema import Evaluation

#: of the images that `probe_lr` belongs to
_BASE_BATCH = 256
_MOMENTUM = 0.9


class LinearProbe(Evaluator):
    """Answers are logits (B, num_classes)."""

    needs_train = True
    metrics = ("linear_top1",)

    def __init__(self, setting: Setting) -> None:
        self.section, self.seed = setting.recipe.evaluation, setting.recipe.system.seed
        train = with_labels(setting.train, "training", "linear_probe")
        val = with_labels(setting.val, "validation", "linear_probe")
        self.train_images, self.images = EvalImages(setting, train), EvalImages(setting, val)
        assert train.targets is not None
        self.labels = torch.from_numpy(train.targets).to(self.images.device)

    def __call__(
        self, network: nn.Module, *, should_stop: ShouldStop = never, answers: Answers | None = None
    ) -> dict[str, float]:
        """linear_top1, linear_top5 (percent), linear_nll, linear_correct1, linear_correct5, linear_num_images."""
        found = all_features(self.train_images, network, should_stop=should_stop)
        probe = train_probe(found, self.labels, self.train_images.num_classes, self.section, self.seed, should_stop)
        counts = Counts(found.device)

        def score(batch: Batch, found: Tensor) -> None:
            logits = probe(found)
            assert batch.targets is not None
            counts.add(logits, batch.targets)
            if answers:
                answers(batch, logits)

        feature_batches(self.images, network, score, should_stop)
        return counts.result().as_dict("linear_")

    def rows(self, numbers: dict[str, float]) -> list[tuple[str, str]]:
        counted = f"{numbers['linear_correct1']:,} of {numbers['linear_num_images']:,} correct"
        convention = (
            f"SGD {self.section.probe_epochs} epochs, lr {self.section.probe_lr:g} for {_BASE_BATCH} images, batch "
            f"{self.section.probe_batch_size}, on {self.train_images.num_images:,} training images under the "
            "evaluation transform, features standardized"
        )
        return [
            ("linear top-1", f"{numbers['linear_top1']:.2f} %  ({counted})"),
            ("linear top-5", f"{numbers['linear_top5']:.2f} %"),
            ("linear convention", convention),
        ]


def train_probe(
    found: Tensor, labels: Tensor, num_classes: int, section: Evaluation, seed: int, should_stop: ShouldStop = never
) -> Callable[[Tensor], Tensor]:
    """Features (B, D) -> logits (B, num_classes), trained on `found` (N, D) and `labels` (N,); the same on all ranks.

    The order of the samples is a function of (seed, epoch); the weights start at 0.

    Raises:
        Stopped: `should_stop` returned True between two epochs, on any rank.
    """
    std, mean = torch.std_mean(found, dim=0, correction=0)
    factor = torch.where(std > 1e-6 * mean.abs(), 1 / std, 0)  # a feature that never varied becomes 0
    found = (found - mean) * factor
    linear = nn.Linear(found.shape[1], num_classes, device=found.device)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    batch_size, epochs = min(section.probe_batch_size, len(found)), section.probe_epochs
    optimizer = torch.optim.SGD(linear.parameters(), lr=section.probe_lr * batch_size / _BASE_BATCH, momentum=_MOMENTUM)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [round(0.6 * epochs), round(0.8 * epochs)], gamma=0.1)
    for epoch in range(epochs):
        if any_rank(should_stop()):
            raise Stopped
        generator = torch.Generator().manual_seed(stream_seed("linear probe", seed, epoch))
        for rows in torch.randperm(len(found), generator=generator).to(found.device).split(batch_size):
            optimizer.zero_grad()
            F.cross_entropy(linear(found[rows]), labels[rows]).backward()
            optimizer.step()
        schedule.step()
    weights = from_main({name: value.cpu() for name, value in linear.state_dict().items()})
    linear.load_state_dict(weights)  # all ranks trained the same, but their hardware may round differently
    return lambda features: linear((features - mean) * factor)
