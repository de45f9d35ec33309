"""The place in a network where its features can be observed, just before the head."""

from torch import Tensor, nn

from vitcli.errors import UsageError


class Latent(nn.Module):
    """Passes features (B, D) on unchanged; a forward hook on it receives them.

    Raises:
        UsageError: it was called with something else, for example with images.
    """

    def forward(self, latent: Tensor) -> Tensor:
        if latent.ndim != 2:
            raise UsageError(
                f"`to_latent` passes features (B, D) on, not {tuple(latent.shape)}",
                help="`model.latent(images)` computes features; a forward hook on `model.to_latent` receives them",
            )
        return latent
