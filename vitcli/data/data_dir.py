"""Whether there is a folder of images: asked before anything that takes time is imported."""

import os
from pathlib import Path

from vitcli.errors import DataError, UsageError
from vitcli.recipe.schema import Dataset

LAYOUT = "the layout is <data_dir>/<split>/<class>/<image>, for example data/train/cat/1.jpg and data/val/cat/2.jpg"


def check_data_dir(section: Dataset) -> Path:
    """Its `data_dir`; DataError or UsageError if there is none."""
    data_dir = section.data_dir
    if data_dir is None:
        raise UsageError(f"the data set {section.dataset!r} needs a folder", help=f"give --data_dir; {LAYOUT}")
    if not data_dir.is_dir():
        what = "is not a folder" if data_dir.exists() else "does not exist"
        raise DataError(f"data_dir {os.fspath(data_dir)!r} {what}", help=f"check --data_dir; {LAYOUT}")
    return data_dir
