"""How far apart feature vectors are: a network that gives every image the same features has collapsed."""

import torch
import torch.nn.functional as F
from torch import Tensor


def feature_std(z: Tensor) -> Tensor:
    """(): standard deviation of each dimension over the batch, of rows normalized to length 1; mean over dimensions.

    z: (B, D) projections or features. 0: all rows point the same way, collapsed; 1 / sqrt(D): spread over the sphere
    (Chen and He 2021, arXiv 2011.10566, section 4.1). The device is not waited for.
    """
    return F.normalize(z.detach().float(), dim=1).std(0, correction=0).mean()


def effective_rank(z: Tensor) -> Tensor:
    """(): exp of the entropy of the singular values, normalized to sum to 1; from 1 to min(B, D).

    z: (B, D), not centered (Roy and Vetterli 2007; RankMe, arXiv 2210.02885). PyTorch waits for the device here.
    """
    values = torch.linalg.svdvals(z.detach().float())
    shares = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
    return torch.special.entr(shares).sum().exp()
