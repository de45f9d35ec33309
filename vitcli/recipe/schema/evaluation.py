"""How the network is measured."""

from __future__ import annotations

from vitcli.recipe.schema.key import Name, Section, key


class Evaluation(Section):
    evaluate: tuple[Name, ...] | None = key(
        None, "Evaluators that measure the network. Default: those of the task.", free=True, registry="evaluators"
    )
    knn_k: int = key(20, "Neighbors that vote in the kNN evaluation.", ge=1, free=True)
    knn_temperature: float = key(0.07, "A neighbor's vote has the weight exp(cosine / this).", gt=0, free=True)
    knn_num_samples: int | None = key(
        None, "Training images among which kNN looks for neighbors. Default: all.", ge=1, free=True
    )
    probe_epochs: int = key(100, "Epochs of the linear probe.", ge=1, free=True)
    probe_lr: float = key(0.3, "Learning rate of the linear probe for 256 images.", gt=0, free=True)
    probe_batch_size: int = key(256, "Features per step of the linear probe.", ge=1, free=True)
