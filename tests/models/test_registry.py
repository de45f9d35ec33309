"""Names of models, and the error for an unknown name."""

import pytest

from tests.models.oracle import NAMES
from vitcli.catalog import model_info
from vitcli.errors import UsageError
from vitcli.models.registry import create_model, list_models


def test_list_models():
    assert set(NAMES) <= set(list_models())
    assert list_models("fastvit_s?12") == ["fastvit_sa12"]
    assert list_models("fastvit_*") == sorted(NAMES)


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UsageError, match="fastvit_t9") as caught:
        create_model("fastvit_t9")
    assert "'fastvit_t8'" in caught.value.help
    with pytest.raises(UsageError) as caught:
        model_info("resnet50")
    assert "fastvit_sa12" in caught.value.help


def test_model_info():
    assert (model_info("fastvit_t8").img_size, model_info("fastvit_t8").crop_pct) == (256, 0.9)
    assert (model_info("fastvit_sa36").crop_pct, model_info("fastvit_ma36").crop_pct) == (0.95, 0.95)
    assert create_model("fastvit_t8").img_size == 256
    assert create_model("fastvit_t8", img_size=224).img_size == 224
