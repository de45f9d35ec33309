"""Plugins: files given with --plugin, installed packages, and what is refused."""

import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import vitcli as package
from tests.support.commands import ROOT, environment, options
from vitcli import catalog
from vitcli.errors import RecipeError, UsageError
from vitcli.models.registry import create_model, list_models
from vitcli.models.transformers import TransformerShape, build_transformer
from vitcli.recipe.load import load_recipe
from vitcli.recipe.plugins import TABLES, forget_plugins, use_plugin

#: the files of the page, by their names
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"This is `(\w+\.py)`:\n\n```python\n(.*?)```", PAGE, re.DOTALL))
COMMON = "num_classes, in_chans, img_size, drop_rate, drop_path_rate, layer_scale_init, grad_checkpointing"
ROW = "from types import SimpleNamespace\nVARIANTS = {'mine': SimpleNamespace(img_size=48, crop_pct=0.8)}\n"
SHAPE = TransformerShape(8, 1, 1, 4, 4)


@pytest.fixture(autouse=True)
def _no_plugins_left():
    forget_plugins()
    yield
    forget_plugins()


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str, name: str = "parts.py") -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def test_names_of_every_kind(write):
    """A file may add to all kinds, and leaves nothing behind once it is forgotten."""
    before = {kind: catalog.names(kind) for kind in catalog.TABLES}
    tables = "".join(f"{table} = {{'mine': print}}\n" for table in TABLES if table != "VARIANTS")
    use_plugin(write(ROW + f"def create(name, *, {COMMON}): ...\n" + tables))
    assert set(TABLES.values()) == set(catalog.PLUGIN_KINDS)
    for kind in catalog.TABLES:
        added = ("mine",) if kind in catalog.PLUGIN_KINDS else ()
        assert catalog.names(kind) == before[kind] + added
    for kind in ("transformers", "sources", "tasks", "evaluators"):
        assert catalog.load(kind, "mine") is print
    assert load_recipe(model="vit_ti_patch16", transformer="mine", dataset="mine", task="mine").learning.task == "mine"
    forget_plugins()
    assert {kind: catalog.names(kind) for kind in catalog.TABLES} == before
    assert "parts" not in sys.modules
    use_plugin(write("TRANSFORMERS = {'another_name': print}\n"))
    assert catalog.names("transformers")[-1] == "another_name"


def test_the_line_of_an_exception_is_the_plugins_own(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write('import json\n\nX = json.loads("{")\nTRANSFORMERS = {"mine": None}\n')
    with pytest.raises(UsageError, match=r"parts\.py:3: JSONDecodeError: Expecting"):
        use_plugin("parts.py")
    assert "mine" not in catalog.names("transformers")
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize(
    ("builder", "said"),
    [
        ("lambda shape: 5", "mine of a plugin builds 5, which is not a torch module"),
        ("lambda: None", r"parts\.py: TypeError: .* takes 0 positional arguments"),
        ("lambda shape: 1 / 0", r"parts\.py:1: ZeroDivisionError"),
    ],
)
def test_a_builder_that_fails(write, builder: str, said: str):
    use_plugin(write(f'TRANSFORMERS = {{"mine": {builder}}}\n'))
    with pytest.raises(UsageError, match=said):
        build_transformer("mine", SHAPE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def build(:\n", r"parts\.py:1: SyntaxError: invalid syntax"),
        ("x = 1\0\n", r"parts(\.py.*)?: SyntaxError: source code string cannot contain null bytes"),
        ("raise RuntimeError('stopped here')\n", r"parts\.py:1: RuntimeError: stopped here"),
        ("import not_installed_anywhere\n", r"parts\.py:1: ModuleNotFoundError"),
        ("x = 1\n", "at least one of the tables VARIANTS, TRANSFORMERS, SOURCES, TASKS, EVALUATORS, SINKS"),
        ("TASKS = {}\n", "at least one of the tables"),
        ("TASKS = ['mine']\n", "TASKS must be a dict with names as keys"),
        ("SOURCES = {1: print}\n", "SOURCES must be a dict with names as keys"),
        ("EVALUATORS = {'mine': 1}\n", r"EVALUATORS\['mine'\] must be a function or a class, not 1"),
        (ROW, "VARIANTS needs a function `create`"),
        (ROW + "create = 1\n", "VARIANTS needs a function `create`"),
        (
            f"VARIANTS = {{'mine': 1}}\ndef create(name, *, {COMMON}): ...\n",
            "parts.py: AttributeError: 'int' object has no attribute 'img_size'",
        ),
        (ROW + "def create(name, *, num_classes, **rest): ...\n", "`create` has no argument in_chans, img_size"),
    ],
)
def test_a_file_that_is_not_a_plugin(write, text: str, said: str):
    before = {kind: catalog.names(kind) for kind in catalog.TABLES}
    with pytest.raises(UsageError, match=said):
        use_plugin(write(text))
    assert {kind: catalog.names(kind) for kind in catalog.TABLES} == before


def test_a_file_that_is_not_there(tmp_path: Path, write):
    for path in (tmp_path / "absent.py", tmp_path, write("TASKS = {}", "parts.txt")):
        with pytest.raises(UsageError, match="no such Python file"):
            use_plugin(path)


@pytest.mark.parametrize("name", ["json.py", "torch.py", "two words.py", "parts.old.py", "__main__.py"])
def test_a_file_named_like_another_module(write, name: str):
    with pytest.raises(UsageError, match="cannot be imported, or is that of another module") as caught:
        use_plugin(write("TASKS = {'mine': print}\n", name))
    assert "rename the file" in caught.value.help
    assert "mine" not in catalog.names("tasks")


def test_names_that_are_taken(write):
    with pytest.raises(UsageError, match=r"parts\.py: the name 'linformer' in TRANSFORMERS is taken"):
        use_plugin(write("TASKS = {'other': print}\nTRANSFORMERS = {'linformer': len}\n"))
    assert "other" not in catalog.names("tasks"), "all or nothing"
    for name in ("one.py", "./one.py"):  # the same file twice is not a contradiction
        use_plugin(write('TRANSFORMERS = {"mine": len}\n', name))
    with pytest.raises(UsageError, match=r"two\.py: the name 'mine' in TRANSFORMERS is taken"):
        use_plugin(write('TRANSFORMERS = {"mine": len}\n', "two.py"))
    with pytest.raises(UsageError, match="builds 0, which"):
        build_transformer("mine", [])  # type: ignore[arg-type]


def test_spawned_workers_can_unpickle_what_a_plugin_defines(write):
    """A process that is started by spawn imports the file under its own name."""
    use_plugin(write("import os\n\ndef where(_):\n    return __file__, os.getpid()\n\nSOURCES = {'mine': where}\n"))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        file, process = pool.map(catalog.load("sources", "mine"), [0])[0]
    assert file.endswith("parts.py")
    assert process != os.getpid()


def test_a_recipe_cannot_name_a_plugin(write):
    recipe = write("plugin: parts.py\nmodel: vit_ti_patch16\ntransformer: mine\n", "recipe.yaml")
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe)
    said = str(caught.value)
    assert re.search(
        r"cannot name a plugin.*\n.*recipe\.yaml:1:1[\s\S]*give it on the command line: --plugin FILE", said
    )
    assert re.search(r"not \"mine\"\n.*recipe\.yaml:3:14[\s\S]*a name from a plugin file needs --plugin FILE", said)


def test_what_only_some_models_have(write):
    use_plugin(write(ROW + f"def create(name, *, {COMMON}, depth=None, extra=2):\n    return img_size, extra\n"))
    assert catalog.model_info("mine").options == ("depth", "extra")
    assert (catalog.model_info("mine").img_size, catalog.model_info("mine").crop_pct) == (48, 0.8)
    assert load_recipe(model="mine", depth=3).model.depth == 3
    for model, said in (("mine", "it has depth"), ("fastvit_t8", "remove `reg_tokens`")):
        with pytest.raises(RecipeError) as caught:
            load_recipe(write(f"reg_tokens: 4\nmodel: {model}\n", "recipe.yaml"))
        assert f"{model} has no `reg_tokens`" in str(caught.value)
        assert "recipe.yaml:1:13" in str(caught.value)
        assert said in str(caught.value)
    with pytest.raises(RecipeError) as caught:
        load_recipe(model="unknown", reg_tokens=4)
    assert len(caught.value.problems) == 1, "which keys an unknown model has is not known"
    assert create_model("mine", extra=5) == (48, 5), "the published size, where none is given"
    assert create_model("mine", img_size=16) == (16, 2)
    with pytest.raises(UsageError, match="mine has no option 'extar'") as error:
        create_model("mine", extar=5)
    assert "grad_checkpointing, depth, extra" in error.value.help


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write the entry points of a package with the modules of the page; nothing of it is imported by this."""
    folder, facts = tmp_path / "someones_parts", tmp_path / "someones_parts-1.0.dist-info"
    folder.mkdir()
    facts.mkdir()
    (folder / "__init__.py").touch()
    (folder / "blocks.py").write_text(EXAMPLES["my_parts.py"])
    (folder / "model.py").write_text(EXAMPLES["my_model.py"])
    (folder / "broken.py").write_text("\n1 / 0\n")
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: someones-parts\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)

    def write(kind: str, row: str) -> None:
        (facts / "entry_points.txt").write_text(f"[vitcli.{kind}]\n{row}\n")
        catalog.forget_installed()

    yield write
    for name in [name for name in sys.modules if name.startswith("someones_parts")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "row", ["mixer = someones_parts.blocks:build_mixer", "mixer = someones_parts.blocks:TRANSFORMERS"]
)
def test_installed_blocks(installed, row: str):
    installed("transformers", row)
    assert catalog.names("transformers")[-1] == "mixer"
    assert load_recipe(model="vit_ti_patch16", transformer="mixer").model.transformer == "mixer"
    assert "someones_parts.blocks" not in sys.modules, "known from the package's metadata"
    mixer = build_transformer("mixer", TransformerShape(16, 2, 2, 5, 4.0))
    assert type(mixer[0]).__module__ == "someones_parts.blocks"
    assert mixer(torch.randn(2, 5, 16)).shape == (2, 5, 16)


def test_installed_model(installed):
    installed("models", "convmixer_digits = someones_parts.model:create")
    assert load_recipe(model="convmixer_digits").model.model == "convmixer_digits"
    assert "someones_parts.model" not in sys.modules
    assert load_recipe(model="convmixer_digits", patch_size=2).model.patch_size == 2
    assert catalog.model_info("convmixer_digits").img_size == 32
    assert create_model("convmixer_digits", num_classes=3)(torch.randn(2, 3, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize(
    ("kind", "row", "said"),
    [
        ("tasks", "mine = someones_parts.gone:Mine", r"someones_parts\.gone: ModuleNotFoundError: No module named"),
        ("tasks", "mine = someones_parts.broken:Mine", r"broken\.py:2: ZeroDivisionError: division by zero"),
        (
            "tasks",
            "mine = someones_parts.blocks:Mine",
            r"blocks\.py: AttributeError: module .* has no attribute 'Mine'",
        ),
        ("tasks", "mine = someones_parts.blocks", r"blocks\.py: AttributeError"),
        ("models", "mine = someones_parts.model:create", r"model\.py: KeyError: 'mine'"),
    ],
)
def test_installed_package_that_is_broken(installed, kind: str, row: str, said: str):
    """Only what uses the name fails; the message says where, and the help says which package."""
    installed(kind, row)
    assert catalog.names(kind)[-1] == "mine"
    with pytest.raises(UsageError, match=said) as caught:
        catalog.model_info("mine") if kind == "models" else catalog.load(kind, "mine")
    expected = "VARIANTS['mine'] needs img_size and crop_pct" if kind == "models" else "package someones-parts provides"
    assert expected in caught.value.help


@pytest.mark.parametrize(
    ("kind", "row", "said"),
    [
        (
            "transformers",
            "linformer = someones_parts.blocks:build_mixer",
            "someones-parts adds the transformer 'linformer'",
        ),
        (
            "plugins",
            "parts = someones_parts.blocks",
            "someones-parts has the entry point 'parts' in the group 'vitcli.plu",
        ),
        (
            "optimizers",
            "mine = someones_parts.blocks:x",
            "in the group 'vitcli.optimizers', which vitcli does not know",
        ),
    ],
)
def test_installed_package_that_is_refused(installed, kind: str, row: str, said: str):
    installed(kind, row)
    with pytest.raises(UsageError, match=said):
        catalog.names("models")


def test_checking_a_recipe_imports_neither_torch_nor_installed_plugins(installed, tmp_path: Path):
    installed("transformers", "mixer = someones_parts.blocks:build_mixer")
    code = """
import sys
from vitcli import load_recipe
recipe = load_recipe(model="vit_s_patch16", transformer="mixer")
print(recipe.model.transformer, "torch" in sys.modules, "someones_parts" in sys.modules)
"""
    path = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(**path), capture_output=True, text=True, check=True
    )
    assert done.stdout == "mixer False False\n"


SMALL = {
    "model": "vit_ti_patch16", "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "epoch_size": 1,
    "num_samples": 64, "batch_size": 32, "num_parallel_workers": 0,
}  # fmt: skip


def test_the_example_of_the_page(write, tmp_path: Path, vitcli):
    """Train and validate with the very file that docs/extending.md shows; without it, words."""
    write(EXAMPLES["my_parts.py"], "my_parts.py")
    shared = options(SMALL | {"epoch_size": 2})
    without = vitcli("train", "-c", "quickstart", *shared, "--transformer", "mixer")
    assert without.returncode == 2
    assert "a name from a plugin file needs --plugin FILE" in without.stderr
    done = vitcli(
        "train", "-c", "quickstart", "--plugin", "my_parts.py", *shared, "--transformer", "mixer", "--run_dir", "run"
    )
    assert done.returncode == 0, done.stderr
    assert "next: vitcli validate --ckpt_path run --plugin my_parts.py\n" in done.stdout
    scores = vitcli("validate", "--ckpt_path", "run", "--plugin=my_parts.py", "--num_parallel_workers", 0)
    assert scores.returncode == 0, scores.stderr
    assert "top-1" in scores.stdout
    for words in (("validate", "--ckpt_path", "run"), ("train", "--resume", "run")):
        refused = vitcli(*words)
        assert refused.returncode == 2
        assert "a name from a plugin file needs --plugin FILE" in refused.stderr
        assert "Traceback" not in refused.stderr
    assert "command line" not in refused.stderr, "the name came from a file"


def test_the_model_of_the_page(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    package.use_plugin(write(EXAMPLES["my_model.py"], "my_model.py"))
    assert list_models("convmixer*") == ["convmixer_digits", "convmixer_s"]
    small = {"epoch_size": 1, "num_samples": 64, "batch_size": 32, "num_parallel_workers": 0, "patch_size": 8}
    result = package.train(load_recipe("quickstart", model="convmixer_digits", run_dir=tmp_path / "run", **small))
    scores = package.validate(load_recipe(ckpt_path=result.run_dir, num_parallel_workers=0))
    assert scores["top1"] == result.last
    other = create_model("convmixer_digits", num_classes=3, in_chans=1, patch_size=8)
    report = package.load_weights(other, result.run_dir / "checkpoints" / "best")
    assert report.resized == ["stem.0.weight"]
    assert sorted(report.missing) == ["head.bias", "head.weight"]


@pytest.mark.slow
def test_the_task_of_the_page(tmp_path: Path, vitcli):
    """A task, an evaluator and a source of a user's own, by the commands of the page."""
    (tmp_path / "my_task.py").write_text(EXAMPLES["my_task.py"])
    for split, count in (("train", 64), ("val", 20)):
        images = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        np.savez(tmp_path / f"{split}.npz", images=images)
    small = ["--model", "vit_ti_patch16", "--patch_size", 8, "--depth", 1, "--batch_size", 32, "--epoch_size", 1]
    words = [
        "--task",
        "rotation",
        "--dataset",
        "arrays",
        "--data_dir",
        ".",
        "--image_resize",
        32,
        "--run_dir",
        "rotation",
    ]
    done = vitcli("train", "--plugin", "my_task.py", *words, *small)
    assert done.returncode == 0, done.stderr
    assert "64 + 20 images, no labels" in done.stdout
    assert "best rotation_top1" in done.stdout
    checkpoint = tmp_path / "rotation" / "checkpoints" / "step-00000002"
    assert load_file(checkpoint / "task.safetensors").keys() == {"head.weight", "head.bias"}
    again = vitcli("train", "--plugin", "my_task.py", "--resume", "rotation")
    assert again.returncode == 0, again.stderr
    assert "continuing at step 2" in again.stdout
