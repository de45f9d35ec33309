"""The fast depthwise convolution gives PyTorch's values for every shape it treats differently."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitcli.layers.cpu import use_cpu_kernels
from vitcli.layers.cpu.depthwise import CpuDepthwiseConv2d, depthwise_conv2d, is_depthwise

CASES = [
    # kernel, stride, outputs per channel, height, width
    (7, 1, 1, 16, 16),  # columns
    (7, 1, 1, 9, 12),
    (5, 1, 1, 8, 8),
    (7, 1, 1, 4, 4),  # matrix
    (7, 1, 1, 1, 1),
    (7, 1, 1, 2, 60),  # narrower than the kernel: PyTorch's own
    (7, 2, 2, 16, 16),  # several outputs, stride
    (7, 2, 2, 15, 13),
    (7, 2, 2, 8, 8),
    (3, 2, 2, 5, 5),
    (3, 1, 2, 16, 8),
    (3, 2, 1, 32, 32),
    (1, 1, 2, 12, 12),
]


@pytest.mark.parametrize(("kernel_size", "stride", "multiple", "height", "width"), CASES)
@pytest.mark.parametrize("bias", [True, False])
def test_equals_conv2d(kernel_size, stride, multiple, height, width, bias):
    torch.manual_seed(0)
    x = torch.randn(3, 4, height, width, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4 * multiple, 1, kernel_size, kernel_size, dtype=torch.float64, requires_grad=True)
    inputs = [x, weight] + ([torch.randn(4 * multiple, dtype=torch.float64, requires_grad=True)] if bias else [])
    expected = F.conv2d(*inputs, stride=stride, padding=kernel_size // 2, groups=4)
    out = depthwise_conv2d(*inputs, stride=stride)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    grads, expected_grads = (torch.autograd.grad(o, inputs, grad) for o in (out, expected))
    torch.testing.assert_close(grads, expected_grads)


def test_module_is_a_conv2d():
    module = CpuDepthwiseConv2d(4, 8, 7, 2, 3, groups=4)
    x = torch.randn(2, 4, 16, 16)
    expected = F.conv2d(x, module.weight, module.bias, 2, 3, groups=4)
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(module.eval()(x), expected)


def test_autocast():
    module = CpuDepthwiseConv2d(4, 4, 7, padding=3, groups=4)
    with torch.autocast("cpu", torch.bfloat16):
        assert {module(torch.randn(2, 4, size, size)).dtype for size in (4, 16)} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("conv", "expected"),
    [
        (nn.Conv2d(4, 4, 7, padding=3, groups=4), True),
        (nn.Conv2d(4, 8, 3, 2, 1, groups=4, bias=False), True),
        (nn.Conv2d(4, 4, 9, padding="same", groups=4), True),
        (nn.Conv2d(4, 4, 3, padding=1, groups=2), False),
        (nn.Conv2d(1, 4, 3, padding=1), False),
        (nn.Conv2d(4, 4, 2, 2, groups=4), False),
        (nn.Conv2d(4, 4, 3, groups=4), False),
        (nn.Conv2d(4, 4, (3, 5), padding=(1, 2), groups=4), False),
        (nn.Conv2d(4, 4, 3, (1, 2), 1, groups=4), False),
        (nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4), False),
        (nn.Conv2d(4, 4, 3, padding=1, groups=4, padding_mode="reflect"), False),
    ],
)
def test_only_convolutions_it_can_compute_are_replaced(conv, expected):
    assert is_depthwise(conv) is expected
    x = torch.randn(2, conv.in_channels, 8, 8)
    before = conv(x)
    torch.testing.assert_close(use_cpu_kernels(conv)(x), before, atol=1e-5, rtol=1e-5)
    assert (type(conv) is CpuDepthwiseConv2d) is expected
