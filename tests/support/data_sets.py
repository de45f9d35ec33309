"""One folder of images in every form in which a data set may come, made by the usual writers."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

Files = dict[str, bytes]


def files_below(folder: Path) -> Files:
    """`cat/1.png` -> its bytes, sorted."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write_zip(path: Path, files: Files, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_tar(path: Path, files: Files, kind: int = tarfile.GNU_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def write_shards(folder: Path, split: str, files: Files, per_shard: int = 4) -> None:
    """A WebDataset: KEY.png and KEY.cls with the name of the class."""
    entries = list(files.items())
    for shard, start in enumerate(range(0, len(entries), per_shard)):
        members: Files = {}
        for name, data in entries[start : start + per_shard]:
            members |= {name: data, str(Path(name).with_suffix(".cls")): Path(name).parts[0].encode()}
        write_tar(folder / f"{split}-{shard:06}.tar", members)


def hugging_face_table(files: Files) -> pa.Table:
    """As `datasets` has it: structs of bytes and path, numbers of classes, and the names in the metadata."""
    names = sorted({Path(name).parts[0] for name in files})
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), ("label", pa.int64())])
    rows = [
        {"image": {"bytes": data, "path": Path(name).name}, "label": names.index(Path(name).parts[0])}
        for name, data in files.items()
    ]
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.Table.from_pylist(rows, schema.with_metadata(metadata))


def write_hub_parquet(folder: Path, split: str, files: Files, row_group_size: int = 3) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(hugging_face_table(files), folder / f"{split}-00000-of-00001.parquet", row_group_size=row_group_size)


def write_arrow(folder: Path, files: Files) -> None:
    """What `Dataset.save_to_disk` writes."""
    folder.mkdir(parents=True, exist_ok=True)
    table = hugging_face_table(files)
    file = str(folder / "data-00000-of-00001.arrow")
    with pa.OSFile(file, "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
