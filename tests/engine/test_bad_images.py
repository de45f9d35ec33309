"""Unreadable images are counted once each, over all ranks together."""

import json
from pathlib import Path

import pytest
import torch

from vitcli.data.batch import BadSample, Batch
from vitcli.engine import bad_images
from vitcli.engine.bad_images import BadImages
from vitcli.errors import DataError


def batch(*names: str) -> Batch:
    bad = tuple(BadSample(0, name, "not an image", 1) for name in names)
    return Batch((torch.zeros(1, 3, 2, 2),), None, torch.tensor([0]), bad=bad, step=7)


def test_the_limit_is_that_of_the_run_and_not_of_each_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """At most 2 of 20 images: two ranks that met two different ones each end the run, the same two do not."""
    ranks = [BadImages(tmp_path / f"{rank}.jsonl", max_ratio=0.1, of=20) for rank in range(2)]
    monkeypatch.setattr(bad_images, "gathered", lambda value: [rank.names for rank in ranks])
    for rank in ranks:
        assert len(list(rank.watch([batch("a.png"), batch("b.png"), batch("a.png")]))) == 3
        rank.check()
    list(ranks[1].watch([]))
    ranks[1].names |= {"c.png"}
    ranks[1].names -= {"a.png"}
    for rank in ranks:
        with pytest.raises(DataError, match="3 images are unreadable"):
            rank.check()


def test_one_rank_alone_ends_the_run_at_once_and_a_resume_knows_the_earlier_ones(tmp_path: Path):
    file = tmp_path / "bad_images.jsonl"
    first = BadImages(file, max_ratio=0.1, of=20)
    list(first.watch([batch("a.png", "b.png")]))
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [7, 7]
    again = BadImages(file, max_ratio=0.1, of=20)
    assert again.names == {"a.png", "b.png"}
    with pytest.raises(DataError, match="more than max_bad_ratio allows"):
        list(again.watch([batch("c.png")]))
