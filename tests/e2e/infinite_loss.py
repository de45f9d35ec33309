"""A plugin: classification in which one image, once per epoch, makes the loss infinite and leaves gradients finite."""

from vitcli.data.batch import Batch
from vitcli.tasks.classification import Classification
from vitcli.tasks.task import TaskOutput

#: the sample whose loss is infinite
INFINITE = 5


class InfiniteLoss(Classification):
    def forward(self, batch: Batch) -> TaskOutput:
        output = super().forward(batch)
        return output._replace(loss=output.loss + float("inf")) if INFINITE in batch.indices else output


TASKS = {"infinite_loss": InfiniteLoss}
