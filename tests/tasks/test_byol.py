"""BYOL against the paper's formulae written down once more, and against byol-pytorch."""

import copy
from collections.abc import Callable
from pathlib import Path

import byol_pytorch
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from vitcli.data.batch import Batch
from vitcli.errors import UsageError
from vitcli.models.registry import create_model
from vitcli.optim.freeze import freeze
from vitcli.recipe.load import Recipe, load_recipe
from vitcli.tasks.byol import Byol, decay_at, regression_loss
from vitcli.weights.load import load_weights

SIZES = {"projector_hidden_dim": 48, "projector_dim": 16, "predictor_hidden_dim": 40}
#: one small model per family; FastViT has BatchNorm
MODELS: dict[str, dict] = {
    "fastvit_t8": {},
    "vit_ti_patch16": {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "global_pool": "avg"},
    "fvit": {"depth": 2},
}
CLASSES = ["cat", "dog", "bird"]
LABELS = torch.tensor([0, 2, 1, 1, 0, 2])


def recipe(model: str = "vit_ti_patch16", **values: object) -> Recipe:
    return load_recipe(None, task="byol", model=model, image_resize=32, **{**MODELS[model], **SIZES, **values})


def network(model: str = "vit_ti_patch16", **options: object) -> nn.Module:
    return create_model(model, num_classes=0, img_size=32, **{**MODELS[model], **options})


def new_task(model: str = "vit_ti_patch16", *, class_names: list[str] | None = None, seed: int = 0, **values) -> Byol:
    """A task whose target differs from its network, as it does in the middle of a run."""
    torch.manual_seed(seed)
    task = Byol(recipe(model, **values), network(model), class_names)
    for p in task.target.parameters():
        p.add_(0.05 * torch.randn_like(p))
    return task


def new_batch(seed: int = 1, size: int = 6) -> Batch:
    views = torch.randn(2, size, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    return Batch((views[0], views[1]), LABELS[:size], torch.arange(size))


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def relative(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def train(task: Byol, steps: range, total_steps: int = 10) -> list[float]:
    """Plain gradient descent; returns the losses."""
    losses = []
    for step in steps:
        loss = task(new_batch(seed=step)).loss
        loss.backward()
        for p in task.parameters():
            if p.grad is not None:
                p.data.sub_(0.1 * p.grad)
                p.grad = None
        task.after_step(step + 1, total_steps)
        losses.append(loss.item())
    return losses


def papers_loss(task: Byol, batch: Batch) -> Tensor:
    """Section 3.1, view by view; a linear layer and batch normalization are written out."""

    def layers(head: nn.Sequential, x: Tensor) -> Tensor:
        first, norm, _, last = head
        x = x @ first.weight.T + first.bias
        x = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5) ** 0.5 * norm.weight + norm.bias
        return x.clamp(min=0) @ last.weight.T + last.bias

    v, v_prime = batch.views
    target_network, target_projector = task.target
    loss = torch.zeros(())
    for one, other in ((v, v_prime), (v_prime, v)):
        q = layers(task.predictor, layers(task.projector, task.network(one)))
        z = layers(target_projector, target_network(other)).detach()
        q_bar, z_bar = q / q.norm(dim=1, keepdim=True), z / z.norm(dim=1, keepdim=True)
        loss = loss + ((q_bar - z_bar) ** 2).sum(1).mean()
    return loss


@pytest.mark.parametrize("model", MODELS)
def test_loss_and_gradients_are_the_papers(model: str):
    """Random data in a net with BatchNorm on single pixels amplifies rounding: FastViT has a wider tolerance."""
    task, batch = new_task(model), new_batch()
    again = copy.deepcopy(task)
    output = task(batch)
    output.loss.backward()
    expected = papers_loss(again, batch)
    expected.backward()
    tolerance = 1e-3 if model == "fastvit_t8" else 1e-5
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert output.metrics["byol_loss"] == output.loss
    ours, theirs = gradients(task), gradients(again)
    assert ours.keys() == theirs.keys()
    assert max(relative(torch.cat([g.flatten() for g in ours.values()]),
                        torch.cat([g.flatten() for g in theirs.values()])), 0) < tolerance  # fmt: skip


def paired(task: Byol, batch: Batch) -> byol_pytorch.BYOL:
    """byol-pytorch's learner with the weights of `task`; it is fed the two views of `batch`, whatever it is given."""
    theirs = byol_pytorch.BYOL(
        copy.deepcopy(task.network),
        image_size=32,
        hidden_layer="to_latent",
        projection_size=SIZES["projector_dim"],
        projection_hidden_size=SIZES["projector_hidden_dim"],
        augment_fn=lambda x: batch.views[0] if len(x) == len(batch) else x,
        augment_fn2=lambda x: batch.views[1] if len(x) == len(batch) else x,
        use_simplicial_embeddings=False,
        sync_batchnorm=False,
    )
    theirs.online_encoder.load_state_dict(
        {f"net.{name}": value for name, value in task.network.state_dict().items()}
        | {f"projector.{name}": value for name, value in task.projector.state_dict().items()}
    )
    theirs.online_predictor.load_state_dict(task.predictor.state_dict())
    names = {"0": "net", "1": "projector"}
    state = {names[name[0]] + name[1:]: value for name, value in task.target.state_dict().items()}
    theirs.target_encoder.load_state_dict(state)
    return theirs


def fixed_statistics(module: nn.Module) -> None:
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm1d):
            norm.eval()


@pytest.mark.parametrize("mirrored", [True, False], ids=["batch statistics", "fixed statistics"])
def test_loss_gradients_and_target_are_those_of_byol_pytorch(mirrored: bool):
    """It normalizes both views as one batch. That is the same where the statistics are fixed, or where the second
    view consists of the same images in reverse order, so that each view has the statistics of both."""
    task, batch = new_task(predictor_hidden_dim=48), new_batch()
    if mirrored:
        batch = Batch((batch.views[0], batch.views[0].flip(0)), None, batch.indices)
    theirs = paired(task, batch)
    if not mirrored:
        fixed_statistics(task)
        fixed_statistics(theirs)
    loss, expected = task(batch).loss, theirs(batch.views[0])
    loss.backward()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    online = {
        "network": theirs.online_encoder.net, "projector": theirs.online_encoder.projector,
        "predictor": theirs.online_predictor,
    }  # fmt: skip
    for name, module in online.items():
        ours, others = gradients(task.get_submodule(name)), gradients(module)
        assert ours.keys() == others.keys()
        flat = [torch.cat([g.flatten() for g in found.values()]) for found in (ours, others)]
        assert relative(*flat) < 1e-6, name

    for learner in (task, theirs):
        for p in learner.parameters():
            if p.grad is not None:
                p.data.sub_(p.grad)
    task.after_step(1, 1000)
    theirs.update_moving_average()
    moved = list(zip(task.target.parameters(), theirs.target_encoder.parameters(), strict=True))
    for our, their in moved:
        torch.testing.assert_close(our, their, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.99), (25, 0.991464466), (50, 0.995), (75, 0.998535534), (100, 1.0)]
)
def test_decay_of_the_target_is_that_of_a_table(step: int, expected: float):
    """1 - 0.01 (cos(pi k / 100) + 1) / 2, with cos(pi / 4) = 0.70710678."""
    assert decay_at(step, 100, 0.99, 1.0) == pytest.approx(expected, abs=1e-9)


def test_the_first_update_uses_the_first_decay_and_the_last_step_nearly_keeps_the_target():
    task = new_task(target_decay=0.5)
    p, q = next(task.target.parameters()), next(task.network.parameters())
    before = p.clone()
    assert task(new_batch()).metrics["tau"] == 0.5
    task.after_step(1, 4)
    torch.testing.assert_close(p, (before + q) / 2)
    assert task(new_batch()).metrics["tau"] == pytest.approx(1 - 0.5 * (0.70710678 + 1) / 2)
    task.after_step(4, 4)
    assert task.tau == 1.0


def test_target_gets_no_gradient_but_gathers_statistics():
    task = new_task("fastvit_t8", class_names=CLASSES)
    before = {name: value.clone() for name, value in task.target.named_buffers()}
    task(new_batch()).loss.backward()
    assert not any(p.requires_grad or p.grad is not None for p in task.target.parameters())
    assert all(p.grad is not None for p in task.parameters() if p.requires_grad)
    assert all((value != before[name]).any() for name, value in task.target.named_buffers())


def test_probe_learns_the_labels_and_touches_nothing_else():
    """The features are 300 times larger than usual, so that a linear layer alone learns in a few steps."""
    with_probe, without = new_task(class_names=CLASSES), new_task()
    without.load_state_dict(with_probe.state_dict(), strict=False)
    with_probe(new_batch()).loss.backward()
    without(new_batch()).loss.backward()
    ours, theirs = gradients(with_probe), gradients(without)
    assert {name for name in ours if name not in theirs} == {"probe.weight", "probe.bias"}
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert with_probe.primary == "knn_top1"
    assert without.primary is None
    assert [m.evaluator for m in without.measurements(without.network)] == ["collapse"]

    assert with_probe.probe is not None
    latents = with_probe.network(new_batch().views[0]).detach()
    for _ in range(500):
        loss = nn.functional.cross_entropy(with_probe.probe(latents), LABELS)
        grads = torch.autograd.grad(loss, list(with_probe.probe.parameters()))
        for p, grad in zip(with_probe.probe.parameters(), grads, strict=True):
            p.data.sub_(grad)
    assert with_probe(new_batch()).metrics["probe_top1"] == 100
    knn, top1, _ = with_probe.measurements(with_probe.network)
    assert (knn.evaluator, knn.network) == ("knn", with_probe.network)
    assert (top1.evaluator, top1.prefix) == ("top1", "probe_")
    assert (top1.network(new_batch().views[0]).argmax(1) == LABELS).all()


def test_probe_has_its_own_rate():
    task = new_task(class_names=CLASSES, lr=0.02, online_probe_lr=0.5)
    factors = {name: task.lr_factor(name) for name, _ in task.named_parameters()}
    assert {name for name, factor in factors.items() if factor != 1} == {"probe.weight", "probe.bias"}
    assert factors["probe.bias"] == 25
    assert new_task(class_names=CLASSES, lr=0.02).lr_factor("probe.bias") == 1


@pytest.mark.parametrize("model", MODELS)
def test_state_restores_to_the_last_bit(model: str):
    whole = new_task(model, class_names=CLASSES)
    losses = train(whole, range(4))

    first = new_task(model, class_names=CLASSES)
    assert train(first, range(2)) == losses[:2]
    network_state = {name: value.clone() for name, value in first.network.state_dict().items()}
    extra = {name: value.clone() for name, value in first.extra_state().items()}
    resumed = new_task(model, class_names=CLASSES, seed=99)
    resumed.restore(network_state, extra)
    assert resumed.tau == first.tau == pytest.approx(decay_at(2, 10, 0.99, 1.0))
    assert train(resumed, range(2, 4)) == losses[2:]
    states = whole.state_dict(), resumed.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("model", MODELS)
def test_checkpointing_changes_nothing(model: str):
    task = new_task(model)
    saving = new_task(model)
    for module in saving.modules():
        if hasattr(module, "grad_checkpointing"):
            module.grad_checkpointing = True
    losses = [t(new_batch()).loss for t in (task, saving)]
    assert losses[0] == losses[1]
    for loss in losses:
        loss.backward()
    assert all(torch.equal(grad, gradients(saving)[name]) for name, grad in gradients(task).items())
    assert all(torch.equal(a, b) for a, b in zip(task.buffers(), saving.buffers(), strict=True))


def test_a_frozen_patch_embedding_stays_while_the_rest_learns():
    net = network()
    freeze(net, [r"^patch_embed\."])
    task = Byol(recipe(), net, None)
    before = {name: p.clone() for name, p in task.network.named_parameters()}
    train(task, range(1))
    for name, p in task.network.named_parameters():
        assert torch.equal(p, before[name]) == name.startswith("patch_embed."), name


def test_loss_is_float32_under_autocast():
    task = new_task(class_names=CLASSES)
    with torch.autocast("cpu", torch.bfloat16):
        output = task(new_batch())
    assert output.loss.dtype == torch.float32
    assert {value.dtype for value in output.metrics.values()} == {torch.float32}


def test_regression_loss_computes_in_float32():
    """Sixteen-bit numbers are taken as they are; nothing is rounded to sixteen bits after that."""
    q, z = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    expected = 2 - 2 * nn.functional.cosine_similarity(q.double(), z.double()).mean()
    assert regression_loss(q, z).item() == pytest.approx(expected.item(), rel=1e-6)


def test_batches_of_one_image_are_refused():
    with pytest.raises(UsageError, match="batch_size: 1"):
        new_task(batch_size=1)


def test_a_network_without_a_vector_is_refused():
    with pytest.raises(UsageError, match=r"Conv2d returns \(1, 8, 30, 30\)"):
        Byol(recipe(), nn.Conv2d(3, 8, 3), None)


def test_notes_tell_what_batch_normalization_sees():
    task = new_task(batch_size=32)
    assert task.notes(accumulation=1, world_size=1) == []
    (note,) = task.notes(accumulation=4, world_size=1)
    assert "sees 32 images at a time, not the global batch of 128" in note
    assert "uses the 64 images of all 2 processes" in task.notes(accumulation=1, world_size=2)[0]


def step_of(rank: int, world_size: int, rendezvous: str, out: str) -> None:
    """One process of several: loss, gradients and statistics of its share of the batch."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world_size)
    task, whole = new_task("fastvit_t8"), new_batch(size=6)
    share = slice(rank * 6 // world_size, (rank + 1) * 6 // world_size)
    views = tuple(view[share] for view in whole.views)
    ddp = nn.parallel.DistributedDataParallel(task)
    loss = ddp(Batch(views, None, whole.indices[share])).loss
    loss.backward()
    found = {"loss": loss.detach(), **gradients(task), **dict(task.named_buffers())}
    torch.save(found, f"{out}.{rank}")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_are_one_with_the_whole_batch(tmp_path: Path):
    mp.spawn(step_of, (2, str(tmp_path / "rendezvous"), str(tmp_path / "out")), nprocs=2)
    found = [torch.load(tmp_path / f"out.{rank}", weights_only=True) for rank in range(2)]
    task = new_task("fastvit_t8")
    loss = task(new_batch(size=6)).loss
    loss.backward()
    torch.testing.assert_close((found[0]["loss"] + found[1]["loss"]) / 2, loss.detach(), rtol=1e-4, atol=1e-5)
    for name, value in task.named_buffers():
        assert torch.equal(found[0][name], found[1][name])
        torch.testing.assert_close(found[0][name], value, rtol=1e-3, atol=1e-3)
    ours, theirs = (torch.cat([g[name].flatten() for name in gradients(task)]) for g in (found[0], gradients(task)))
    assert relative(ours, theirs) < 1e-2


@pytest.fixture
def byol_pytorch_file(tmp_path: Path) -> Callable[[int], Path]:
    """A state dict that byol-pytorch's learner has saved, of a network with so many classes."""

    def write(num_classes: int) -> Path:
        torch.manual_seed(3)
        net = create_model("vit_ti_patch16", num_classes=num_classes, img_size=32, **MODELS["vit_ti_patch16"])
        nn.init.normal_(net.get_submodule("head").weight)
        learner = byol_pytorch.BYOL(net, image_size=32, hidden_layer="to_latent", use_simplicial_embeddings=False,
                                    projection_size=16, projection_hidden_size=32, sync_batchnorm=False)  # fmt: skip
        torch.save(learner.state_dict(), tmp_path / "learner.pt")
        return tmp_path / "learner.pt"

    return write


@pytest.mark.parametrize("num_classes", [5, 1000])
def test_the_network_of_a_byol_pytorch_file_is_read(byol_pytorch_file: Callable[[int], Path], num_classes: int):
    """Its head never trained there, so that it is not read even where it fits."""
    file = byol_pytorch_file(num_classes)
    model = create_model("vit_ti_patch16", num_classes=5, img_size=32, **MODELS["vit_ti_patch16"])
    report = load_weights(model, file)
    theirs = torch.load(file, weights_only=True)
    for name, value in model.state_dict().items():
        if name.startswith("head."):
            assert value.eq(0).all(), name
        else:
            assert torch.equal(value, theirs[f"online_encoder.net.{name}"]), name
    assert any("online_encoder.net" in line for line in report.lines())
