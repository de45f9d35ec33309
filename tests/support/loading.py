"""All training batches of some images, and whether two lists of them are the same."""

import torch

from vitcli.data.batch import Batch
from vitcli.data.loader import build_train_loader
from vitcli.data.sampler import BatchPlan
from vitcli.data.views import build_views
from vitcli.recipe.schema import Augmentation

AUG = Augmentation(image_resize=8, auto_augment="rand-m9-mstd0.5-inc1", interpolation="random")


def load(
    images, *, plan=None, rank=0, start=0, total=9, workers=0, seed=3, on_bad_image="fail", num_views=1
) -> list[Batch]:
    plan = plan or BatchPlan(len(images), 4, accumulation=2, seed=3)
    options = {"seed": seed, "rank": rank, "start_step": start, "total_steps": total, "num_workers": workers}
    return list(build_train_loader(images, build_views(AUG, num_views), plan, **options, on_bad_image=on_bad_image))


def same(batches: list[Batch], others: list[Batch]) -> bool:
    def facts(batch):
        return (
            batch.indices.tolist(),
            batch.targets.tolist(),
            batch.bad,
            batch.epoch,
            batch.step,
            batch.micro,
            batch.block,
        )

    return len(batches) == len(others) and all(
        facts(batch) == facts(other) and all(map(torch.equal, batch.views, other.views))
        for batch, other in zip(batches, others, strict=True)
    )
