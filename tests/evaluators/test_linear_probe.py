"""The linear probe against scikit-learn's logistic regression on the same features; equal seeds, equal results."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from tests.evaluators.conftest import MakeSetting, Pixels, Unlabeled, pixels, source
from vitcli.data.datasets import Splits
from vitcli.errors import DataError
from vitcli.evaluators.evaluator import Stopped
from vitcli.evaluators.linear_probe import LinearProbe, train_probe


class Scaled(nn.Module):
    """The features of `Pixels`, badly scaled: no `to_latent`, so they are what the network returns."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.logspace(-4, 2, 192))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) * self.scale + 5


@pytest.mark.parametrize("network", [Pixels(), Scaled()], ids=["pixels", "badly scaled"])
def test_close_to_logistic_regression(network: nn.Module, digits: Splits, setting: MakeSetting):
    train, val = pixels(digits.train).numpy(), pixels(digits.val).numpy()
    scaler = StandardScaler().fit(train)
    sklearn = LogisticRegression(max_iter=1000).fit(scaler.transform(train), digits.train.targets)
    expected = 100 * sklearn.score(scaler.transform(val), digits.val.targets)
    evaluator = LinearProbe(setting(digits.val, digits.train))
    numbers = evaluator(network)
    assert numbers["linear_top1"] == pytest.approx(expected, abs=1.0)
    assert numbers["linear_num_images"] == 355
    assert numbers["linear_correct1"] == round(3.55 * numbers["linear_top1"])
    rows = dict(evaluator.rows(numbers))
    assert rows["linear convention"].startswith("SGD 100 epochs, lr 0.3 for 256 images, batch 256, on 1,442 training")


def test_one_epoch_by_hand(setting: MakeSetting):
    """Two steps of SGD with momentum, on features of mean 0 and standard deviation 1, in float64."""
    x = np.array([[1.0, -1.0], [-1.0, 1.0], [1.0, 1.0], [-1.0, -1.0]])
    labels, section = torch.tensor([0, 1, 0, 1]), setting(None, probe_epochs=2, probe_batch_size=4).recipe.evaluation
    probe = train_probe(torch.tensor(x, dtype=torch.float32), labels, 2, section, seed=0)
    weight, bias, rate = np.zeros((2, 2)), np.zeros(2), 0.3 * 4 / 256
    velocity = np.zeros((2, 3))
    for factor in (1.0, 0.1):  # epoch 1 of 2 comes after 60 % (rounded), so it is at a tenth
        logits = x @ weight.T + bias
        errors = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(2)[labels]
        gradient = np.concatenate([errors.T @ x, errors.sum(0)[:, None]], 1) / 4
        velocity = 0.9 * velocity + gradient
        weight, bias = weight - factor * rate * velocity[:, :2], bias - factor * rate * velocity[:, 2]
    np.testing.assert_allclose(probe(torch.tensor(x).float()).detach(), x @ weight.T + bias, rtol=1e-5)


def test_equal_seeds_give_equal_results(setting: MakeSetting):
    train, val = source(60, 5, seed=1), source(41, 5, seed=2)
    first, again, other = (
        LinearProbe(setting(val, train, probe_epochs=5, probe_batch_size=16, seed=seed))(Pixels()) for seed in (1, 1, 2)
    )
    assert first == again
    assert first["linear_nll"] != other["linear_nll"]


def test_a_feature_that_never_varies_does_no_harm(setting: MakeSetting):
    section = setting(None, probe_epochs=3).recipe.evaluation
    found = torch.cat([torch.randn(20, 3), torch.full((20, 1), 0.1)], 1)
    probe = train_probe(found, torch.randint(2, (20,)), 2, section, seed=0)
    assert probe(found).isfinite().all()
    assert torch.equal(probe(found + torch.tensor([0, 0, 0, 9.0])), probe(found))


def test_can_be_stopped_while_it_trains(setting: MakeSetting):
    section = setting(None, probe_epochs=3).recipe.evaluation
    with pytest.raises(Stopped):
        train_probe(torch.randn(20, 3), torch.randint(2, (20,)), 2, section, seed=0, should_stop=lambda: True)


def test_labels_of_both_splits_are_needed(setting: MakeSetting):
    unlabeled = Unlabeled(15)
    with pytest.raises(DataError, match="linear_probe needs labeled training images"):
        LinearProbe(setting(source(15, 2), unlabeled))
    with pytest.raises(DataError, match="linear_probe needs labeled validation images"):
        LinearProbe(setting(unlabeled, source(15, 2)))
