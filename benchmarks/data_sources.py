"""How fast each kind of data set opens, and gives the bytes of an image in random order, from the same files.

    python benchmarks/data_sources.py --data-dir CIFAR10

The training images of an image folder are written once more as tar, zip, WebDataset, Arrow, Parquet and packed data
into a temporary folder. Opening includes the fingerprint. The files are in the page cache.
"""

import argparse
import io
import json
import random
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vitcli.data.datasets import build_split
from vitcli.data.pack import Packing, pack
from vitcli.data.source import Source
from vitcli.recipe.schema import Dataset

#: images of a shard, and of a row group
PER_SHARD, PER_GROUP = 5000, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="image folder with train/")
    parser.add_argument("--num-read", type=int, default=5000, help="images that are read")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        originals = build_split(Dataset(data_dir=options.data_dir), "train")
        for name, data_dir in ({"imagefolder": options.data_dir} | write(originals, Path(folder))).items():
            measure(name, data_dir, options.num_read)


def measure(name: str, data_dir: Path, num_read: int) -> None:
    """Print how fast the data set opens and is read."""
    dataset = {"tar": "archive", "zip": "archive", "arrow": "hf", "parquet": "hf"}.get(name, name)
    begin = time.perf_counter()
    source = build_split(Dataset(dataset=dataset, data_dir=data_dir), "train")
    source.fingerprint()
    opened = time.perf_counter() - begin
    indices = random.Random(0).sample(range(len(source)), min(num_read, len(source)))
    begin = time.perf_counter()
    size = sum(len(source.file(index) or b"") for index in indices)
    each = (time.perf_counter() - begin) / len(indices)
    what = f"the bytes of an image of {size / len(indices):,.0f}"
    print(f"{name:12} {len(source):,} images opened in {opened:.2f} s; {1e6 * each:.0f} us for {what}", flush=True)


def write(source: Source, folder: Path) -> dict[str, Path]:
    """The same images in each form: name -> data_dir."""
    files = [(source.name(index), source.file(index) or b"", source.labels(index)[0]) for index in range(len(source))]
    with zipfile.ZipFile(folder / "train.zip", "w", zipfile.ZIP_STORED) as archive:
        for name, data, _ in files:
            archive.writestr(f"train/{name}", data)
    (folder / "tar").mkdir()
    _write_tar(folder / "tar" / "train.tar", [(name, data) for name, data, _ in files])
    (folder / "wds").mkdir()
    for shard, start in enumerate(range(0, len(files), PER_SHARD)):
        members = []
        for name, data, label in files[start : start + PER_SHARD]:
            members += [(name, data), (str(Path(name).with_suffix(".cls")), label.encode())]
        _write_tar(folder / "wds" / f"train-{shard:06}.tar", members)
    _write_tables(files, folder)
    pack(source, folder / "packed" / "train", Packing())
    names = ("tar", "zip", "webdataset", "arrow", "parquet", "packed")
    places = ("tar", "train.zip", "wds", "arrow", "parquet", "packed")
    return {name: folder / place for name, place in zip(names, places, strict=True)}


def _write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def _write_tables(files: list[tuple[str, bytes, str]], folder: Path) -> None:
    names = sorted({label for _, _, label in files})
    rows = [{"image": {"bytes": data, "path": name}, "label": names.index(label)} for name, data, label in files]
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), ("label", pa.int64())])
    table = pa.Table.from_pylist(
        rows, schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    )
    for name in ("arrow/train", "parquet"):
        (folder / name).mkdir(parents=True)
    pq.write_table(table, folder / "parquet" / "train.parquet", row_group_size=PER_GROUP)
    with pa.ipc.new_stream(folder / "arrow" / "train" / "data-00000-of-00001.arrow", table.schema) as stream:
        stream.write_table(table, max_chunksize=1000)


if __name__ == "__main__":
    main()
