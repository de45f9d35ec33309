"""A way of learning that vitcli does not know: two views, a head, a buffer and a metric of its own, and an evaluator.

As a plugin it is what a user would write; the tests train it, kill it and resume it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitcli.data.batch import Batch
from vitcli.data.eval_transform import build_eval_transform
from vitcli.data.loader import build_eval_loader
from vitcli.data.mixing import BatchPreparer, Normalizer
from vitcli.distributed import all_sum, any_rank
from vitcli.evaluators.evaluator import Evaluator, Setting, Stopped
from vitcli.tasks.task import Measurement, Task, TaskOutput


class Agreement(Task):
    """The head's answers to two views of an image shall agree, and differ from their moving average."""

    num_views = 2
    needs_labels = False
    primary = "spread"

    def __init__(self, recipe, network: nn.Module, class_names: list[str] | None) -> None:
        super().__init__(recipe, network, class_names)
        self.head = nn.Linear(192, 16)
        self.register_buffer("center", torch.zeros(16))
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.int64))
        self.preparer = BatchPreparer(recipe.augmentation, 0)

    @staticmethod
    def num_outputs(class_names: list[str] | None) -> int:
        return 0

    def prepare(self, batch: Batch, seed: int) -> Batch:
        return self.preparer(batch, seed)

    def forward(self, batch: Batch) -> TaskOutput:
        one, two = (self.head(self.network(view)).float() for view in batch.views)
        with torch.no_grad():
            self.center.lerp_(one.mean(0), 0.1)
        distance = (one - two).square().mean()
        return TaskOutput(
            distance - (one - self.center).square().mean().clamp(max=1.0), {"distance": distance.detach()}
        )

    def after_step(self, step: int, total_steps: int) -> None:
        self.num_steps += 1
        assert self.num_steps == step

    def measurements(self, network: nn.Module) -> list[Measurement]:
        return [Measurement("spread", network)]


class Spread(Evaluator):
    """How far apart the features of the validation images are."""

    metrics = ("spread",)

    def __init__(self, setting: Setting) -> None:
        recipe, self.world = setting.recipe, setting.world
        self.normalize = Normalizer(recipe.augmentation.mean, recipe.augmentation.std)
        transform = build_eval_transform(recipe.augmentation)
        self.batches = build_eval_loader(
            setting.val, transform, batch_size=64, rank=self.world.rank, world_size=self.world.size
        )

    @torch.inference_mode()
    def __call__(self, network: nn.Module, *, should_stop=lambda: False, answers=None) -> dict[str, float]:
        network.eval()
        sums: Tensor = torch.zeros(2, dtype=torch.float64)
        stopped = False
        for batch in self.batches:
            if stopped := should_stop():
                break
            features = F.normalize(network(self.normalize(batch.images.to(self.world.device))).float(), dim=1)
            sums += torch.stack([(1 - features @ features.T).mean(1).sum(), torch.tensor(len(batch))]).double().cpu()
        network.train()
        if any_rank(stopped):
            raise Stopped
        total, count = all_sum(sums).tolist()
        return {"spread": total / count}

    def rows(self, numbers: dict[str, float]) -> list[tuple[str, str]]:
        return [("spread", f"{numbers['spread']:.4f}")]


TASKS = {"agreement": Agreement}
EVALUATORS = {"spread": Spread}
