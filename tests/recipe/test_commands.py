"""`vitcli recipes …` as it is typed."""

from pathlib import Path

import pytest

from vitcli.recipe.library import header, shipped_recipes
from vitcli.recipe.load import load_recipe

EXPECTED = [
    "byol_vit_s16", "cifar10_byol_fastvit_t8", "cifar10_byol_vit", "cifar10_fastvit_t8", "cifar10_fastvit_t8_int8_qat",
    "cifar10_finetune_10percent", "cifar10_finetune_1percent", "cifar10_fvit", "cifar10_fvit_augmented",
    "cifar10_sl_vit", "cifar10_vit", "deit3_s16", "deit_s16", "fastvit_ma36", "fastvit_ma36_finetune_384",
    "fastvit_s12", "fastvit_sa12", "fastvit_sa24", "fastvit_sa36", "fastvit_t12", "fastvit_t8", "finetune",
    "highres_linformer", "linear_probe", "mindcv_fastvit_t8", "quickstart", "vit_b16", "vit_b16_finetune_384",
    "vit_b16_in21k", "vit_h14", "vit_l16", "vit_s16", "vit_s32", "vit_ti16",
]  # fmt: skip


def test_shipped_recipes():
    assert list(shipped_recipes()) == EXPECTED


@pytest.mark.parametrize("name", EXPECTED)
def test_header_says_command_and_result(name: str):
    text = "\n".join(header(shipped_recipes()[name]))
    assert "command" in text
    assert "measured" in text
    assert f"-c recipes/{name}.yaml" in text or f"-c {name}" in text
    assert load_recipe(name).notes == (), "a shipped recipe says nothing that has no effect"


def test_ls_show_cp_validate_diff(tmp_path: Path, vitcli):
    assert "fastvit_sa36" in vitcli("recipes", "ls").stdout
    shown = vitcli("recipes", "show", "fastvit_t8", "--lr", "2e-3").stdout
    assert "command line" in shown
    assert "fastvit_t8.yaml:" in shown
    assert "default" in shown
    assert vitcli("recipes", "cp", "fastvit_t8").returncode == 0
    again = vitcli("recipes", "cp", "fastvit_t8")
    assert again.returncode == 2
    assert "exists" in again.stderr
    (tmp_path / "bad.yaml").write_text("lrr: 1\n")
    checked = vitcli("recipes", "validate", "fastvit_t8.yaml", "bad.yaml")
    assert checked.returncode == 2
    assert "fastvit_t8.yaml: ok" in checked.stdout
    assert "bad.yaml:1:1" in checked.stderr
    differing = vitcli("recipes", "diff", "fastvit_sa36", "fastvit_ma36").stdout
    assert "drop_path_rate" in differing
    assert "epoch_size" not in differing


def test_unknown_recipe(vitcli):
    done = vitcli("train", "-c", "fastvit_t9")
    assert done.returncode == 2
    assert "no such recipe file" in done.stderr
    assert "fastvit_t" in done.stderr


def test_help_lists_every_key(vitcli):
    from vitcli.recipe.schema import SECTION_OF

    text = vitcli("train", "--help_all").stdout
    assert all(f"--{name}" in text for name in SECTION_OF)


def test_dashes_underscores_and_mistakes_together(vitcli):
    done = vitcli("train", "-c", "quickstart", "--batch-size", "x", "--weigth-decay=3", "--epoch_size", "0")
    assert done.returncode == 2
    for words in ("`batch_size` must be", "did you mean `--weight_decay`?", "`epoch_size` must be"):
        assert words in done.stderr
    assert "Traceback" not in done.stderr
