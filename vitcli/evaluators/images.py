"""All images of a split, each exactly once, spread over the ranks: what every evaluator runs its network on."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vitcli.data.batch import Batch
from vitcli.data.crops import Crops, build_crop_transform
from vitcli.data.eval_transform import build_eval_transform
from vitcli.data.loader import build_eval_loader, num_workers
from vitcli.data.mixing import Normalizer
from vitcli.data.source import Source
from vitcli.distributed import any_rank, gathered
from vitcli.evaluators.evaluator import Setting, ShouldStop, Stopped


class EvalImages:
    """This rank's share of `source` under the evaluation transform of the recipe.

    crops: also that many crops of each image; the batches then have one view (B, 1 + crops, C, H, W), and hold fewer
    images, so that the network sees about as many at a time.
    """

    def __init__(self, setting: Setting, source: Source, *, crops: Crops | None = None) -> None:
        recipe, world = setting.recipe, setting.world
        augmentation, in_channels = recipe.augmentation, recipe.model.in_channels
        self.device, self.autocast = world.device, setting.autocast
        self.num_images, self.num_classes = len(source), len(source.class_names or ())
        self.batch_size = recipe.dataset.val_batch_size or recipe.dataset.batch_size
        self.normalize = Normalizer(augmentation.mean, augmentation.std, in_channels)
        if crops:
            transform = build_crop_transform(crops, augmentation, in_channels=in_channels)
        else:
            transform = build_eval_transform(augmentation, in_channels=in_channels)
        self.batches = build_eval_loader(
            source,
            transform,
            batch_size=max(1, self.batch_size // (1 + crops.num_crops)) if crops else self.batch_size,
            rank=world.rank,
            world_size=world.size,
            num_workers=num_workers(recipe.dataset, world.local_size),
            pin_memory=world.device.type == "cuda",
        )

    @torch.inference_mode()
    def visit(self, network: nn.Module, visit: Callable[[Batch], None], should_stop: ShouldStop) -> None:
        """Call `visit` with each batch, on the device, while `network` is in evaluation mode.

        Raises:
            Stopped: `should_stop` returned True between two batches, on any rank.
        """
        modes = [(module, module.training) for module in network.modules()]
        network.eval()
        seen, stopped = 0, False
        try:
            for batch in self.batches:
                if stopped := should_stop():
                    break
                visit(batch.to(self.device))
                seen += len(batch)
        finally:
            for module, training in modes:
                module.training = training
        if any_rank(stopped):
            raise Stopped
        total = sum(gathered(seen))
        assert total == self.num_images, f"evaluated {total} of {self.num_images} images"

    def answers(self, network: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
        """uint8 images (N, C, H, W) -> what `network` makes of them once normalized, float32; some at a time."""
        chunks = pixels.chunk(math.ceil(len(pixels) / self.batch_size))
        with self.autocast():
            return torch.cat([network(self.normalize(chunk)).float() for chunk in chunks])
