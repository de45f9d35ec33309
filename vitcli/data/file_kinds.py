"""Which data sets are files of their own, by suffix, and so need not be named by the key `dataset`."""

from collections.abc import Iterable
from pathlib import Path

from vitcli.data.image_formats import suffix_of

#: recipe key `dataset` -> suffixes of the tables that list its images, see `sources/table.py`
TABLES = {"csv": (".csv", ".tsv"), "jsonl": (".jsonl", ".ndjson"), "parquet": (".parquet",)}
#: the same for `data_dir` that is a file of any kind
FILES = {**TABLES, "archive": (".zip", ".tar")}
#: the same for files in a folder that is `data_dir`
FILES_OF_FOLDERS = {**TABLES, "archive": (".zip",), "webdataset": (".tar",), "hf": (".arrow", ".parquet")}


def kind_of_file(path: Path) -> str | None:
    """The data set that the file `path` is by its name; None: it is no file, or of no kind."""
    return next((kind for kind, suffixes in FILES.items() if path.suffix.lower() in suffixes and path.is_file()), None)


def kinds_of_files(names: Iterable[str]) -> list[str]:
    """The data sets that a folder with these files may be."""
    there = {suffix_of(name) for name in names}
    return [kind for kind, suffixes in FILES_OF_FOLDERS.items() if there & {*suffixes}]
