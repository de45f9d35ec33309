"""The 1,000 classes of ImageNet-1k: a folder is named by the number of a synset, an output often in words.

n01440764  tench, Tinca tinca
"""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files

_SYNSET = re.compile(r"n\d{8}")
#: of the names in words: those of different sources differ in a few classes
_ENOUGH = 0.95


def as_spelled_by(data: Iterable[str], outputs: Sequence[str]) -> list[str]:
    """The names `outputs` as folders of `data` spell them: numbers of synsets, if these are ImageNet's names in words.

    So they are if 95 % of the 1,000 are the words of the class at their place, or the first of them. What else they
    are called is returned as it is.
    """
    if not all(map(_SYNSET.fullmatch, data)) or len(outputs) != len(synsets()):
        return list(outputs)
    same = sum(
        output.casefold() in (words.casefold(), words.partition(",")[0].casefold())
        for output, words in zip(outputs, synsets().values(), strict=True)
    )
    return list(synsets()) if same >= _ENOUGH * len(outputs) else list(outputs)


@cache
def synsets() -> dict[str, str]:
    """Number of the synset -> its words in WordNet 3.0, in the order of the outputs."""
    text = (files("vitcli.data") / "imagenet_1k.txt").read_text(encoding="utf-8")
    return dict(line.split(" ", 1) for line in text.splitlines())
