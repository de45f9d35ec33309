"""Parts that others wrote: known without being run, run only when asked for on the command line, refused in words."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import vitcli as package
from tests.conftest import ROOT, environment, options
from vitcli.errors import RecipeError, UsageError
from vitcli.models.registry import create_model, list_models
from vitcli.models.transformers import TransformerShape, build_transformer
from vitcli.recipe.load import load_recipe
from vitcli.recipe.names import model_options, registered
from vitcli.recipe.plugins import forget_plugins, imported, use_plugin

#: the files of the page, by the name that stands before each
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"This is `(\w+\.py)`:\n\n```python\n(.*?)```", PAGE, re.DOTALL))
COMMON = "num_classes, in_chans, img_size, drop_rate, drop_path_rate, layer_scale_init, grad_checkpointing"


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


def test_names_are_known_without_running_the_file(write):
    file = write('raise RuntimeError("I ran")\nTRANSFORMERS: dict = {"mine": None}\n')
    use_plugin(file)
    assert registered("transformers") == ("linformer", "nystrom", "performer", "mine")
    assert load_recipe(model="vit_ti_patch16", transformer="mine").model.transformer == "mine"
    with pytest.raises(UsageError, match=rf"{re.escape(str(file))}:1: RuntimeError: I ran"):
        build_transformer("mine", TransformerShape(8, 1, 1, 4, 4))
    forget_plugins()
    assert "mine" not in registered("transformers")
    use_plugin(write('TRANSFORMERS = {"changed": None}\n'))
    assert registered("transformers")[-1] == "changed"


def test_the_line_of_an_exception_is_the_plugins_own(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write('import json\n\nX = json.loads("{")\nTRANSFORMERS = {"mine": None}\n')
    use_plugin("parts.py")
    with pytest.raises(UsageError, match=r"^error: parts\.py:3: JSONDecodeError"):
        imported(Path("parts.py"))


@pytest.mark.parametrize(
    ("builder", "said"),
    [
        ("lambda shape: 5", "mine builds 5, which is not a torch module"),
        ("lambda: None", r"parts\.py: TypeError: .* takes 0 positional arguments"),
        ("lambda shape: 1 / 0", r"parts\.py:1: ZeroDivisionError"),
    ],
)
def test_a_builder_that_fails_is_told_in_words(write, builder: str, said: str):
    use_plugin(write(f'TRANSFORMERS = {{"mine": {builder}}}\n'))
    with pytest.raises(UsageError, match=said):
        build_transformer("mine", TransformerShape(8, 1, 1, 4, 4))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def build(:\n", r"parts\.py:1: not Python"),
        ("x = 1\0\n", r"parts\.py:1: not Python"),
        ("x = 1\n", "none of the tables VARIANTS, TRANSFORMERS"),
        ("\nTRANSFORMERS = dict(mine=len)\n", r"parts\.py:2: TRANSFORMERS must be a dict that is written out"),
        ("TRANSFORMERS = {**{}, 'mine': len}\n", "must be a dict that is written out"),
        ("TRANSFORMERS = {'a' + 'b': len}\n", "must be a dict that is written out"),
        ("TRANSFORMERS = {'a': len, 'a': len}\n", "with each name once"),
        ("VARIANTS = {'mine': 1}\n", "function create.* lacks num_classes, in_chans"),
        ("VARIANTS = {'mine': 1}\ndef create(name, *, num_classes, **rest): ...\n", "it lacks in_chans, img_size"),
    ],
)
def test_a_file_that_is_no_plugin(write, text: str, said: str):
    with pytest.raises(UsageError, match=said):
        use_plugin(write(text))
    assert "mine" not in registered("models")


def test_a_file_that_is_not_there(tmp_path: Path):
    for path, said in ((tmp_path / "absent.py", "cannot read .*absent.py: No such file"), (tmp_path, r"ends in \.py")):
        with pytest.raises(UsageError, match=said):
            use_plugin(path)


def test_names_that_are_taken(write):
    use_plugin(write('TRANSFORMERS = {\n  "linformer": len,\n}\n'))
    with pytest.raises(UsageError, match=r"parts\.py:2: the name 'linformer' is taken by .*transformers\.py"):
        registered("transformers")
    forget_plugins()
    for name in ("one.py", "two.py", "./one.py"):  # the first one twice is no contradiction
        use_plugin(write('TRANSFORMERS = {"mine": len}\n', name))
    with pytest.raises(UsageError, match=r"two\.py:1: the name 'mine' is taken by .*one\.py"):
        build_transformer("mine", TransformerShape(8, 1, 1, 4, 4))


def test_a_recipe_cannot_name_a_plugin(write):
    recipe = write("plugin: parts.py\nmodel: vit_ti_patch16\ntransformer: mine\n", "recipe.yaml")
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe)
    said = str(caught.value)
    assert re.search(r"cannot name a plugin.*\n.*recipe\.yaml:1:1[\s\S]*type it with the command: --plugin FILE", said)
    assert re.search(r"not \"mine\"\n.*recipe\.yaml:3:14[\s\S]*if it comes from a plugin, give --plugin FILE", said)


def test_what_only_some_models_have(write):
    file = write(f"VARIANTS = {{'mine': 1}}\ndef create(name, *, {COMMON}, depth=None, extra=2):\n    return extra\n")
    use_plugin(file)
    assert model_options("mine") == (*COMMON.split(", "), "depth", "extra")
    assert load_recipe(model="mine", depth=3).model.depth == 3
    for model, taken in (("mine", "it has depth"), ("fastvit_t8", "leave it out")):
        with pytest.raises(RecipeError) as caught:
            load_recipe(write(f"reg_tokens: 4\nmodel: {model}\n", "recipe.yaml"))
        assert f"{model} has no `reg_tokens`" in str(caught.value)
        assert "recipe.yaml:1:13" in str(caught.value)
        assert taken in str(caught.value)
    with pytest.raises(RecipeError) as caught:
        load_recipe(model="unknown", reg_tokens=4)
    assert len(caught.value.problems) == 1, "nobody knows what an unknown model has"
    assert create_model("mine", extra=5) == 5
    with pytest.raises(UsageError, match="mine has no 'extar'") as error:
        create_model("mine", extar=5)
    assert "extra" in error.value.help


def test_our_models_are_those_of_the_tables():
    files = [path.stem for path in (ROOT / "vitcli" / "models").glob("*.py")]
    tables = [getattr(importlib.import_module(f"vitcli.models.{name}"), "VARIANTS", {}) for name in files]
    assert list_models() == sorted({name for table in tables for name in table})


def test_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, facts = tmp_path / "someones_parts", tmp_path / "someones_parts-1.0.dist-info"
    folder.mkdir()
    facts.mkdir()
    (folder / "__init__.py").touch()
    (folder / "blocks.py").write_text(EXAMPLES["my_parts.py"])
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: someones-parts\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[vitcli.plugins]\nparts = someones_parts.blocks\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert registered("transformers")[-1] == "mixer"
    assert "someones_parts.blocks" not in sys.modules, "read, not imported"
    mixer = build_transformer("mixer", TransformerShape(16, 2, 2, 5, 4.0))
    assert type(mixer[0]).__module__ == "someones_parts.blocks"
    assert mixer(torch.randn(2, 5, 16)).shape == (2, 5, 16)
    (folder / "broken.py").write_text("1 / 0\n")
    for value, said in (("someones_parts.gone", "no such module"), ("someones_parts.broken.x", "ZeroDivisionError")):
        (facts / "entry_points.txt").write_text(f"[vitcli.plugins]\nparts = {value}\n")
        forget_plugins()
        with pytest.raises(UsageError, match=f"package someones-parts declares the plugin {value}, but .*{said}"):
            registered("models")


def test_checking_a_recipe_imports_neither_torch_nor_the_plugin(write, tmp_path: Path):
    file = write('import torch\nprint("I ran")\nTRANSFORMERS = {"mine": None}\n')
    code = f"""
import sys
from vitcli import load_recipe, use_plugin
use_plugin({str(file)!r})
print(load_recipe(model="vit_s_patch16", transformer="mine").model.transformer, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "mine False\n"


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
    assert "if it comes from a plugin, give --plugin FILE" in without.stderr
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
        assert "if it comes from a plugin, give --plugin FILE" in refused.stderr
        assert "Traceback" not in refused.stderr
    assert "command line" not in refused.stderr, "the name came from a file"


def test_the_model_of_the_page(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    package.use_plugin(write(EXAMPLES["my_model.py"], "my_model.py"))
    assert list_models("convmixer*") == ["convmixer_digits", "convmixer_s"]
    small = {"epoch_size": 1, "num_samples": 64, "batch_size": 32, "num_parallel_workers": 0, "patch_size": 8}
    result = package.train(load_recipe("quickstart", model="convmixer_digits", run_dir=tmp_path / "run", **small))
    scores = package.validate(load_recipe(ckpt_path=result.run_dir, num_parallel_workers=0))
    assert scores.top1 == result.last_top1
    other = create_model("convmixer_digits", num_classes=3, in_chans=1, patch_size=8)
    report = package.load_weights(other, result.run_dir / "checkpoints" / "best")
    assert report.resized == ["stem.0.weight"]
    assert sorted(report.missing) == ["head.bias", "head.weight"]
