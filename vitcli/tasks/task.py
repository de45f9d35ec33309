"""What a way of learning is to the rest of the program: the network, everything else that training changes, a loss."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from vitcli.data.batch import Batch
from vitcli.data.mixing import BatchPreparer
from vitcli.recipe.load import Recipe

#: how the names of the network's parameters and buffers begin in those of a task
NETWORK = "network."


class TaskOutput(NamedTuple):
    """What one forward pass comes to."""

    loss: Tensor  #: () mean over the batch
    metrics: dict[str, Tensor]  #: name -> () mean over the batch, detached; the same names in every step


class Measurement(NamedTuple):
    """One evaluator of a task, and what it is given."""

    evaluator: str  #: a name of `catalog.EVALUATORS`
    network: nn.Module  #: images -> what this evaluator reads: logits, or features
    prefix: str = ""  #: of the names of its numbers, where two evaluators would use the same


class Task(nn.Module):
    """Owns all that training changes. DDP and torch.compile wrap it; optimizer, checkpoint and resume take its state.

    A subclass sets the class attributes, adds modules of its own, defines `forward`, and has `prepare` or a `preparer`.

    Args:
        recipe: of the run.
        network: what is averaged, evaluated, saved as model.safetensors and deployed.
        class_names: None where the images have no labels.
    """

    num_views: int = 1  #: independently augmented views of each sample
    needs_labels: bool = True
    multi_label: bool = False  #: whether an image has any number of classes, not exactly one
    evaluators: tuple[str, ...] = ()  #: those that measure the network alone, for `vitcli validate`
    preparer: BatchPreparer  #: normalizes, erases and mixes in `prepare`
    primary: str | None = None  #: the number of its evaluators that chooses the best checkpoint; larger is better

    def __init__(self, recipe: Recipe, network: nn.Module, class_names: list[str] | None) -> None:
        super().__init__()
        self.network = network

    @staticmethod
    def num_outputs(class_names: list[str] | None) -> int:
        """Outputs of the network's head; 0: it has none and returns features (B, D)."""
        return len(class_names or ())

    def prepare(self, batch: Batch, seed: int) -> Batch:
        """The batch on its device, as the loader made it (uint8) -> what `forward` takes; a function of its place.

        On a GPU this runs while the previous step is still running, so it must not read what training changes.
        """
        return self.preparer(batch, seed)

    def forward(self, batch: Batch) -> TaskOutput:
        """The loss of one micro-batch, in float32."""
        raise NotImplementedError

    def after_step(self, step: int, total_steps: int) -> None:
        """Called when `step` optimizer steps are done."""

    def notes(self, *, accumulation: int, world_size: int) -> list[str]:
        """What a user should know of this run before it starts, one sentence each."""
        return []

    def lr_factor(self, name: str) -> float:
        """Multiplies the learning rate of the parameter `name` of this task."""
        return 1.0

    def next_command(self, run: str) -> str:
        """What a user does next with the finished run."""
        return f"vitcli validate --ckpt_path {run}"

    def measurements(self, network: nn.Module) -> list[Measurement]:
        """How `network` is evaluated: this task's own, or the moving average of it."""
        raise NotImplementedError

    def extra_state(self) -> dict[str, Tensor]:
        """What a bitwise resume needs besides the network; saved as task.safetensors."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith(NETWORK)}

    def restore(self, network: Mapping[str, Tensor], extra: Mapping[str, Tensor]) -> None:
        """Take back the state of the network and `extra_state`; every name must be there."""
        self.load_state_dict({**{NETWORK + name: value for name, value in network.items()}, **extra})
