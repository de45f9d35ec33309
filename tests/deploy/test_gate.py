"""The gate's arithmetic, on outputs that are known."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from vitcli.deploy.gate import Comparison, compare, judge, made_up_pixels, new_comparison
from vitcli.deploy.quantize import layer_errors

LOGITS = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0], [1.0, 0.0, 4.0], [2.0, 0.0, 1.0]])
LABELS = torch.tensor([0, 1, 2, 1])  # three of four are right


def found(change: Tensor, *, labels: Tensor | None = LABELS, probabilities: bool = False):
    """The comparison of LOGITS with LOGITS + change, each image's row chosen by its first pixel."""
    pixels = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1)

    def session(images: np.ndarray) -> np.ndarray:
        rows = (LOGITS + change)[torch.from_numpy(images).flatten().long()]
        return (rows.softmax(-1) if probabilities else rows).numpy()

    batches = [(pixels, LOGITS, labels)]
    return compare(session, batches, lambda given: given.numpy(), gives_probabilities=probabilities)


@pytest.mark.parametrize("probabilities", [False, True])
def test_the_same_is_the_same(probabilities: bool):
    same = found(torch.zeros(4, 3), probabilities=probabilities)
    assert same.max_difference < 1e-6
    assert (same.num_agreeing, same.correct_source, same.correct_artifact) == (4, 3, 3)
    assert not judge("fp32", same, same).problems


def test_a_difference_is_measured():
    change = torch.zeros(4, 3)
    change[2, 1] = 0.5
    differs = found(change)
    assert differs.max_difference == 0.5
    assert differs.num_agreeing == 4
    spread = ((LOGITS - LOGITS.mean(1, keepdim=True)) ** 2).sum().item()
    assert differs.error == pytest.approx((0.25 / spread) ** 0.5)
    assert judge("fp32", differs, None).problems == ["logits differ by up to 0.5 on made-up images; 0.0001 is allowed"]
    assert not judge("bf16", differs, None).problems


def test_of_probabilities_the_logarithms_are_compared():
    change = torch.zeros(4, 3)
    change[0, 2] = 0.01
    expected = (LOGITS + change).log_softmax(-1) - LOGITS.log_softmax(-1)
    assert found(change, probabilities=True).max_difference == pytest.approx(expected.abs().max().item(), rel=1e-3)


def test_another_class_counts_unless_the_source_is_undecided():
    change = torch.zeros(4, 3)
    change[0, 1] = 2.5
    assert found(change).num_agreeing == 3
    assert found(change).correct_artifact == 2


@pytest.mark.parametrize("real", [True, False])
def test_fp32_with_another_top1_is_refused_though_the_logits_agree(real: bool):
    """A classifier whose logits are tiny: all differences are within the tolerance, and one class is another."""
    same = Comparison(num_images=100, num_labeled=100, num_agreeing=100, correct_source=90, correct_artifact=90)
    other = Comparison(num_images=100, num_labeled=100, num_agreeing=99, correct_source=90, correct_artifact=90)
    verdict = judge("fp32", same, other) if real else judge("fp32", other, same)
    assert verdict.problems == [f"top-1 differs on 1 of 100 {'real' if real else 'made-up'} images"]
    assert not judge("fp32", same, same).problems
    assert not judge("bf16", same, other).problems


@pytest.mark.parametrize("large_first", [True, False])
@pytest.mark.parametrize(("margin", "refused"), [(1e-4, False), (2e-3, True)])
def test_fp32_top1_is_judged_by_the_logits_of_each_image(margin: float, refused: bool, large_first: bool):
    """Logits of 2000 in one image allow differences of 0.01 everywhere. In another image, whose first two logits are
    `margin` apart, they change places: a tie at 1e-4, another answer at 2e-3."""
    small, large = torch.tensor([[1.0, 1.0 - margin, 0.0]]), torch.tensor([[2000.0, 0.0, 0.0]])
    swapped = small[:, [1, 0, 2]]
    answers = {0: swapped, 1: large}

    def session(images: np.ndarray) -> np.ndarray:
        return answers[int(images.flat[0])].numpy()

    batches = [
        (torch.full((1, 1, 1, 1), i, dtype=torch.uint8), logits, None) for i, logits in enumerate((small, large))
    ]
    ordered = batches[::-1] if large_first else batches
    differs = compare(session, ordered, lambda pixels: pixels.numpy(), gives_probabilities=False)
    assert differs.max_difference == pytest.approx(margin, rel=1e-3)
    problems = judge("fp32", differs, None).problems
    assert problems == (["top-1 differs on 1 of 2 made-up images"] if refused else [])


def test_less_accuracy_is_refused_and_one_image_of_few_is_not():
    good, worse = Comparison(), Comparison(num_images=1000, num_labeled=1000, correct_source=800, correct_artifact=796)
    assert "top-1 falls by 0.40 points on 1,000 images" in judge("int8", good, worse).problems[0]
    worse.correct_artifact = 797
    assert not judge("int8", good, worse).problems
    few = Comparison(num_images=20, num_labeled=20, correct_source=18, correct_artifact=17)
    assert not judge("int8", good, few).problems
    assert judge("bf16", good, Comparison(num_images=1, finite=False)).problems


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("side", ["artifact", "source"])
def test_what_is_not_a_number_passes_nothing(precision: str, side: str, monkeypatch: pytest.MonkeyPatch):
    change = torch.zeros(4, 3)
    change[1, 1] = torch.nan
    if side == "source":
        monkeypatch.setattr("tests.deploy.test_gate.LOGITS", LOGITS + change)
        change = -change
    spoilt = found(change)
    assert "not finite" in judge(precision, spoilt, spoilt).problems[0]
    assert spoilt.as_dict()["max_difference"] is None or spoilt.as_dict()["relative_error"] is None


def test_labels_do_not_excuse_other_probabilities():
    """All logits times 0.2: every image keeps its class, and no probability is right."""
    scaled = found(-0.8 * LOGITS)
    assert (scaled.num_agreeing, scaled.correct_artifact) == (4, 3)
    assert "of their spread" in judge("fp16", Comparison(), scaled).problems[0]
    assert "of their spread" in judge("int8", Comparison(), scaled).problems[0]


def several(change: Tensor, *, probabilities: bool = False, targets: Tensor | None = None):
    """As `found`, for images of any number of classes with thresholds of 0.5, 0.7 and 0.9."""
    pixels = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1)

    def session(images: np.ndarray) -> np.ndarray:
        rows = (LOGITS + change)[torch.from_numpy(images).flatten().long()]
        return (rows.sigmoid() if probabilities else rows).numpy()

    how = {"gives_probabilities": probabilities, "thresholds": np.array([0.5, 0.7, 0.9])}
    return compare(session, [(pixels, LOGITS, targets)], lambda given: given.numpy(), **how)


TARGETS = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 1], [1, 1, 0]], dtype=torch.bool)


@pytest.mark.parametrize("probabilities", [False, True])
def test_any_number_of_classes(probabilities: bool):
    same = several(torch.zeros(4, 3), probabilities=probabilities, targets=TARGETS)
    assert same.max_difference < 1e-5
    assert not judge("fp32", same, same).problems
    expected = 100 * average_precision_score(TARGETS, LOGITS, average="macro")
    assert same.source_percent == same.artifact_percent == pytest.approx(expected)
    assert same.as_dict()["mAP_agreement"] == 100

    change = torch.zeros(4, 3)
    change[1, 1] = -1.5  # 0.88 becomes 0.62, below 0.7
    other = several(change, probabilities=probabilities, targets=TARGETS)
    assert other.max_difference == pytest.approx(1.5, rel=1e-4)
    assert other.num_agreeing == 3
    assert other.artifact_percent == pytest.approx(
        100 * average_precision_score(TARGETS, LOGITS + change, average="macro")
    )
    spread = ((LOGITS - LOGITS.mean()) ** 2).sum().item()
    assert other.error == pytest.approx((1.5**2 / spread) ** 0.5, rel=1e-4)
    assert "of their spread" in judge("fp16", same, other).problems[0]


def test_less_mean_average_precision_is_refused():
    """400 images of one class, 200 of which have it; the artifact ranks some of them last."""
    scores, has = torch.linspace(1, -1, 400, dtype=torch.float64)[:, None], (torch.arange(400) < 200)[:, None]
    for num_lost, refused in ((1, False), (20, True)):
        found = new_comparison(np.array([0.5]))
        theirs = scores.clone()
        theirs[:num_lost] = -2
        found.add(scores, theirs, has, probabilities=False)
        found.squares = 0.0  # the other rule, of the logits, is not meant here
        problems = judge("int8", found, found).problems
        assert [problem.startswith("mAP falls by") for problem in problems] == [True] * refused


def test_made_up_images_are_what_they_say():
    pixels = made_up_pixels(32, 3)
    assert pixels.shape == (16, 3, 32, 32)
    assert pixels.dtype == torch.uint8
    assert (pixels[0] == 0).all()
    assert (pixels[2] == 255).all()
    assert len({image.numpy().tobytes() for image in pixels}) == 16
    assert torch.equal(pixels, made_up_pixels(32, 3))


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


def test_the_layer_that_suffers_from_int8_is_found():
    """One input column of the second layer is 1000 times the others, which then round to nothing."""
    torch.manual_seed(0)
    network = Two().eval()
    with torch.no_grad():
        network.first.bias[0] = 1000.0
        network.second.weight[:, 0] = 1e-6
    errors = layer_errors(network, [torch.randn(50, 8)])
    assert list(errors) == ["second", "first"]
    assert errors["second"] > 3 * errors["first"]
    assert type(network.second) is nn.Linear
    assert list(layer_errors(network, [torch.randn(5, 8)], kept=["second"])) == ["first"]
