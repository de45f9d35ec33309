"""The fast batch norms give PyTorch's values: outputs, gradients, running statistics."""

import pytest
import torch
from torch import nn

from vitcli.layers.cpu.norm import CpuBatchNorm2d, Term, channel_statistics, is_fast, sum_of_norms


def norms(count: int, channels: int = 5) -> list[CpuBatchNorm2d]:
    """Norms whose weights and biases are not 1 and 0."""
    made = [CpuBatchNorm2d(channels) for _ in range(count)]
    for norm in made:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return made


def test_batch_norm_equals_pytorchs():
    torch.manual_seed(0)
    ours = norms(1)[0]
    theirs = nn.BatchNorm2d(5)
    theirs.load_state_dict(ours.state_dict())
    for _ in range(3):
        x = torch.randn(4, 5, 8, 6) * 3 + 10
        results = []
        for norm in (ours, theirs):
            inputs = [x.clone().requires_grad_(), norm.weight, norm.bias]
            out = norm(inputs[0])
            results.append((out, *torch.autograd.grad(out.sin().sum(), inputs)))
        torch.testing.assert_close(*results, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_statistics_survive_a_large_mean():
    x = torch.randn(8, 3, 32, 32) + 1000
    mean, var = channel_statistics(x)
    expected = torch.var_mean(x.double(), (0, 2, 3), correction=0)
    torch.testing.assert_close((var.double(), mean.double()), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("scale", [1.0, 1e-2])  # with the small one, eps decides
def test_sum_of_norms_equals_its_terms(scale):
    torch.manual_seed(1)
    members = norms(3)
    judges = [nn.BatchNorm2d(5) for _ in members]
    for norm, judge in zip(members, judges):
        judge.load_state_dict(norm.state_dict())
    x = (scale * torch.randn(4, 5, 6, 7) + 0.3).requires_grad_()
    weight, gain = torch.randn(5, requires_grad=True), torch.randn(5, requires_grad=True)

    def gradients(out: torch.Tensor, of: list[nn.Module]) -> tuple[torch.Tensor, ...]:
        parameters = [p for norm in of for p in norm.parameters()]
        return torch.autograd.grad(out.sin().sum(), [x, weight, gain, *parameters])

    terms = [Term(members[0], gain, weight), Term(members[1], gain), Term(members[2], -gain)]
    out = sum_of_norms(x, terms)
    columns = (-1, 1, 1)
    expected = gain.view(columns) * (judges[0](x * weight.view(columns)) + judges[1](x) - judges[2](x))
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    grads, expected_grads = gradients(out, members), gradients(expected, judges)
    for grad, expected_grad in zip(grads, expected_grads):
        torch.testing.assert_close(grad, expected_grad, atol=1e-5 / scale, rtol=2e-4)
    for norm, judge in zip(members, judges):
        torch.testing.assert_close(norm.state_dict(), judge.state_dict())


def test_cases_that_use_pytorchs_code():
    x = torch.randn(2, 5, 8, 8)
    members = norms(2)
    assert is_fast(x, members)
    assert not is_fast(x.bfloat16(), members)
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_fast(x, members)
    assert not is_fast(x[..., :2, :2], members)
    assert not is_fast(x, [members[0].eval(), members[1]])
    assert not is_fast(x, [members[1], nn.SyncBatchNorm(5)])
