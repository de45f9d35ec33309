"""Learning without labels from two views of each image: bootstrap your own latent (BYOL, arXiv 2006.07733).

    view 1  ->  network  ->  projector  ->  predictor  ->  q1       online: trained
    view 2  ->  target network  ->  target projector   ->  z2       target: the moving average of the online network

The loss is |q1 / |q1| - z2 / |z2||^2 = 2 - 2 cos(q1, z2), plus the same with the views exchanged. Nothing pushes
different images apart. The predictor and the slow target keep the features from becoming one constant; `z_std` and the
evaluator `collapse` show whether they do.
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitcli.data.batch import Batch
from vitcli.data.mixing import BatchPreparer
from vitcli.errors import UsageError
from vitcli.layers.spread import feature_std
from vitcli.layers.sync_norm import synchronize_norms
from vitcli.recipe.load import Recipe
from vitcli.tasks.task import Measurement, Task, TaskOutput


class Byol(Task):
    """`network`: images (B, C, H, W) -> features (B, D), without a head.

    With class names, a linear classifier (`probe`) learns the labels from the features of the first view. It is a
    measurement only: no gradient of it reaches the network.

    Raises:
        UsageError: the network returns no features (B, D), or batches of one image are asked for.
    """

    num_views = 2
    needs_labels = False
    evaluators = ("knn",)
    tau: Tensor  #: () decay of the next update of the target

    def __init__(self, recipe: Recipe, network: nn.Module, class_names: list[str] | None) -> None:
        if recipe.dataset.batch_size == 1:
            help = "batch normalization needs at least 2 images"
            raise UsageError("task: byol does not work with batch_size: 1", help=help)
        super().__init__(recipe, network, class_names)
        self.recipe, section = recipe, recipe.learning
        self.preparer = BatchPreparer(recipe.augmentation, 0, in_channels=recipe.model.in_channels)
        width, device = _num_features(network, recipe), next(network.parameters()).device
        projector = mlp(width, section.projector_hidden_dim, section.projector_dim)
        predictor = mlp(section.projector_dim, section.predictor_hidden_dim, section.projector_dim)
        synchronize_norms(network)
        self.projector = synchronize_norms(projector.to(device))
        self.predictor = synchronize_norms(predictor.to(device))
        self.target = nn.Sequential(copy.deepcopy(network), copy.deepcopy(self.projector)).requires_grad_(False)
        self.register_buffer("tau", torch.tensor(section.target_decay, device=device))
        self.probe = nn.Linear(width, len(class_names)).to(device) if class_names else None
        self.primary = "knn_top1" if class_names else None

    @staticmethod
    def num_outputs(class_names: list[str] | None) -> int:
        return 0

    def forward(self, batch: Batch) -> TaskOutput:
        first, second = batch.views
        # one pass per view, as in the paper: batch normalization sees each view alone
        features, other_features = self.network(first), self.network(second)
        projected = self.projector(features)
        online = self.predictor(projected), self.predictor(self.projector(other_features))
        with torch.no_grad():
            target = self.target(first), self.target(second)
        loss = regression_loss(online[0], target[1]) + regression_loss(online[1], target[0])
        metrics = {"byol_loss": loss.detach(), "tau": self.tau.clone(), "z_std": feature_std(projected)}
        if self.probe is not None and batch.targets is not None:
            logits = self.probe(features.detach()).float()
            loss = loss + F.cross_entropy(logits, batch.targets)
            metrics["probe_top1"] = 100 * (logits.argmax(1) == batch.targets).float().mean()
        return TaskOutput(loss, metrics)

    @torch.no_grad()
    def after_step(self, step: int, total_steps: int) -> None:
        """Move the target's parameters; its batch normalization gathers statistics in its own forward passes."""
        section = self.recipe.learning
        ends = section.target_decay, section.target_decay_end
        online: list[Tensor] = [*self.network.parameters(), *self.projector.parameters()]
        target: list[Tensor] = [*self.target.parameters()]
        share = 1 - decay_at(step - 1, total_steps, *ends)
        torch._foreach_lerp_(target, online, share)  # pyright: ignore[reportPrivateImportUsage]
        self.tau.fill_(decay_at(step, total_steps, *ends))

    def lr_factor(self, name: str) -> float:
        """The probe has a rate of its own, `online_probe_lr`, which follows the same schedule."""
        rate = self.recipe.learning.online_probe_lr
        return rate / self.recipe.scheduler.lr if rate and name.startswith("probe.") else 1.0

    def measurements(self, network: nn.Module) -> list[Measurement]:
        collapse = Measurement("collapse", network)
        if self.probe is None:
            return [collapse]
        probe = Measurement("top1", nn.Sequential(network, self.probe), "probe_")
        return [Measurement("knn", network), probe, collapse]

    def next_command(self, run: str) -> str:
        return super().next_command(run) if self.primary else f"vitcli embed {run} DIR -o features.npz"

    def notes(self, *, accumulation: int, world_size: int) -> list[str]:
        seen, notes = self.recipe.dataset.batch_size * world_size, []
        if world_size > 1:
            notes.append(f"batch normalization uses the {seen} images of all {world_size} processes together")
        if accumulation > 1:
            notes.append(
                f"batch normalization sees {seen} images at a time, not the global batch of {seen * accumulation}: "
                "with another batch_size or number of accumulation steps the result differs"
            )
        return notes


def mlp(width: int, hidden_width: int, num_outputs: int) -> nn.Sequential:
    """Projector and predictor: (B, width) -> (B, num_outputs). The last layer has a bias and no normalization."""
    return nn.Sequential(
        nn.Linear(width, hidden_width),
        nn.BatchNorm1d(hidden_width),
        nn.ReLU(inplace=True),
        nn.Linear(hidden_width, num_outputs),
    )


def regression_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of 2 - 2 cos(predicted, target), both (B, D); in float32. (Paper, equation 2.)"""
    cosine = (F.normalize(predicted.float(), dim=1) * F.normalize(target.float(), dim=1)).sum(1)
    return (2 - 2 * cosine).mean()


def decay_at(step: int, total_steps: int, start: float, end: float) -> float:
    """Decay of the target after step `step` (from 0): `start` to `end` along a cosine. (Paper, section 3.2.)"""
    return end - (end - start) * (math.cos(math.pi * step / total_steps) + 1) / 2


@torch.no_grad()
def _num_features(network: nn.Module, recipe: Recipe) -> int:
    """The width D of the network's output, found by a pass in eval mode."""
    size, was_training = recipe.augmentation.height_and_width, network.training
    example = torch.zeros(1, recipe.model.in_channels, *size, device=next(network.parameters()).device)
    features = network.eval()(example)
    network.train(was_training)
    if features.ndim != 2:
        raise UsageError(
            f"{type(network).__name__} returns {tuple(features.shape)} for one image",
            help="task: byol needs a model that returns features (B, D) when num_classes is 0",
        )
    return features.shape[1]
