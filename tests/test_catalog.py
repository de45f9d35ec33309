"""The catalog and the code that it points at agree."""

import inspect

import pytest
import timm

from vitcli import catalog
from vitcli.errors import UsageError
from vitcli.models import fastvit, vit
from vitcli.models.registry import create_model
from vitcli.recipe.schema import OWN_KEYS, SECTION_OF, extra

ROWS = [(kind, name) for kind in catalog.TABLES for name in catalog.names(kind) if kind != "evaluators"]


@pytest.mark.parametrize(("kind", "name"), ROWS, ids=["-".join(row) for row in ROWS])
def test_each_row_can_be_imported(kind: str, name: str):
    assert callable(catalog.load(kind, name))


@pytest.mark.parametrize("family", [catalog.FASTVIT, catalog.VIT, catalog.FVIT], ids=lambda family: family.create)
def test_options_are_the_arguments_of_create(family: catalog.Family):
    name = next(name for name, row in catalog.MODELS.items() if row.family is family)
    parameters = inspect.signature(catalog.load("models", name)).parameters
    assert tuple(parameters) == ("name", *catalog.MODEL_ARGUMENTS, *family.options)
    required = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
    assert required == ["name", *catalog.MODEL_ARGUMENTS], "what a recipe may leave unset has a default"


def test_create_model_passes_on_what_every_model_takes():
    assert tuple(inspect.signature(create_model).parameters) == ("name", *catalog.MODEL_ARGUMENTS, "options")


def test_keys_of_some_models_are_options_of_some_model():
    options = {option for row in catalog.MODELS.values() for option in row.options}
    assert set(OWN_KEYS) <= options
    assert options - set(OWN_KEYS) == {"auto_encode"}, "reached from Python only"


def test_the_names_are_those_of_the_tables_in_the_code():
    def of(family: catalog.Family) -> list[str]:
        return [name for name, row in catalog.MODELS.items() if row.family is family]

    assert of(catalog.FASTVIT) == list(fastvit.VARIANTS)
    assert of(catalog.VIT) == list(vit.VARIANTS)
    assert of(catalog.FVIT) == ["fvit"]


def test_every_registry_of_the_schema_is_a_table():
    assert {extra(key)["registry"] for key in SECTION_OF} == {None, *catalog.TABLES}


@pytest.mark.parametrize(
    ("name", "published"),
    [(name, f"{name}.apple_in1k") for name in catalog.MODELS if name.startswith("fastvit")]
    + [
        ("vit_ti_patch16", "vit_tiny_patch16_224.augreg_in21k_ft_in1k"),
        ("vit_b_patch16", "vit_base_patch16_224.augreg_in21k_ft_in1k"),
        ("vit_b_patch32", "vit_base_patch32_224.augreg_in21k_ft_in1k"),
    ],
)
def test_published_sizes_are_timms(name: str, published: str):
    theirs = timm.models.get_pretrained_cfg(published)
    ours = catalog.model_info(name)
    assert theirs is not None
    assert (3, ours.img_size, ours.img_size) == theirs.input_size
    # Apple's code, the source of the weights, evaluates SA36 with 0.95; timm with 0.90
    assert ours.crop_pct == (0.95 if name == "fastvit_sa36" else theirs.crop_pct)


@pytest.mark.parametrize(
    ("kind", "name", "message", "help"),
    [
        ("models", "fastvit_t9", "no model is named 'fastvit_t9'", "did you mean 'fastvit_t8'?\na model from a plugin"),
        ("tasks", "xyz", "no task is named 'xyz'", "known tasks: classification"),
        ("sources", "cifar-10", "no source is named 'cifar-10'", "did you mean 'cifar10'?\na source from a plugin"),
        ("optimizers", "xyz", "no optimizer is named 'xyz'", "known optimizers: adamw, adam, "),
    ],
)
def test_an_unknown_name(kind: str, name: str, message: str, help: str):
    with pytest.raises(UsageError) as caught:
        catalog.load(kind, name)
    assert caught.value.message == message
    assert caught.value.help.startswith(help)
    assert ("--plugin FILE" in caught.value.help) == (kind in catalog.PLUGIN_KINDS)


@pytest.mark.parametrize(
    ("word", "names", "expected"),
    [
        ("weigth_decay", ["weight_decay", "decay"], "weight_decay"),
        ("modle", ["mode", "model"], "model"),
        ("models", ["model", "mode"], "model"),
        ("ce", ["CE", "BCE"], "CE"),
        ("resnet", ["vit", "fvit"], None),
        (3, ["a3", "b"], "a3"),
        ("", [], None),
    ],
)
def test_nearest(word: object, names: list[str], expected: str | None):
    assert catalog.nearest(word, names) == expected
