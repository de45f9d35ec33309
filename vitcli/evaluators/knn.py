"""Weighted k nearest neighbors: how well features separate the classes, with nothing trained on them.

The protocol of Wu et al. 2018 (arXiv 1805.01978, section 3.4), as DINO and solo-learn report it: features of the
evaluation transform, normalized to length 1; the k most similar training images vote with weights exp(cosine / T).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitcli.data.batch import Batch
from vitcli.distributed import all_sum
from vitcli.evaluators.evaluator import Answers, Evaluator, Setting, ShouldStop, never, with_labels
from vitcli.evaluators.images import EvalImages, all_features, feature_batches

#: similarities in memory at a time: 128 MiB of float32
_MAX_SIMILARITIES = 2**25


class Knn(Evaluator):
    """Answers are votes (B, num_classes) that sum to 1."""

    needs_train = True
    metrics = ("knn_top1",)

    def __init__(self, setting: Setting) -> None:
        section = setting.recipe.evaluation
        train = with_labels(setting.train, "training", "knn")
        val = with_labels(setting.val, "validation", "knn")
        train = train if section.knn_num_samples is None else train.subset(section.knn_num_samples)
        self.bank, self.images = EvalImages(setting, train), EvalImages(setting, val)
        assert train.targets is not None
        self.labels = torch.from_numpy(train.targets).to(self.bank.device)
        self.k, self.temperature = min(section.knn_k, len(train)), section.knn_temperature

    def __call__(
        self, network: nn.Module, *, should_stop: ShouldStop = never, answers: Answers | None = None
    ) -> dict[str, float]:
        """knn_top1 (percent), knn_correct1, num_images."""
        bank = F.normalize(all_features(self.bank, network, should_stop=should_stop), dim=1)
        correct = torch.zeros((), dtype=torch.int64, device=bank.device)

        def vote(batch: Batch, found: Tensor) -> None:
            votes = knn_votes(
                F.normalize(found, dim=1), bank, self.labels, num_classes=self.bank.num_classes, k=self.k,
                temperature=self.temperature,
            )  # fmt: skip
            correct.add_((votes.argmax(1) == batch.targets).sum())
            if answers:
                answers(batch, votes)

        feature_batches(self.images, network, vote, should_stop)
        correct1, num_images = int(all_sum(correct).item()), self.images.num_images
        return {"knn_top1": 100 * correct1 / num_images, "knn_correct1": correct1, "num_images": num_images}

    def rows(self, numbers: dict[str, float]) -> list[tuple[str, str]]:
        convention = (
            f"k {self.k}, weights exp(cosine / {self.temperature:g}), {self.bank.num_images:,} training images "
            "under the evaluation transform"
        )
        top1 = f"{numbers['knn_top1']:.2f} %  ({numbers['knn_correct1']:,} of {numbers['num_images']:,} correct)"
        return [("kNN top-1", top1), ("kNN convention", convention)]


def knn_votes(queries: Tensor, bank: Tensor, labels: Tensor, *, num_classes: int, k: int, temperature: float) -> Tensor:
    """(B, num_classes): the share of the k most similar rows of `bank` that votes for each class.

    Args:
        queries: (B, D), bank: (N, D); rows of length 1.
        labels: (N,) int64, of the rows of `bank`.
        temperature: a neighbor has the weight exp(cosine / temperature).
    """
    votes = []
    for chunk in queries.split(max(1, _MAX_SIMILARITIES // len(bank))):
        nearest = (chunk @ bank.T).topk(k, dim=1)  # (b, k)
        weights = (nearest.values / temperature).softmax(1)  # exp of a small temperature would overflow
        votes.append(weights.new_zeros(len(chunk), num_classes).scatter_add_(1, labels[nearest.indices], weights))
    return torch.cat(votes)
