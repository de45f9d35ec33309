"""Single rows of Arrow and Parquet files, in blocks: the record batches of the one, the row groups of the other.

Arrow files are mapped into memory, and a row costs no more than its bytes. Of a Parquet file a whole row group has to
be read and decompressed, so the last ones are kept, up to `_BUDGET` bytes in each process.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from vitcli.data.random_access import LargeFile
from vitcli.errors import DataError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

#: bytes of row groups that a process keeps
_BUDGET = 256 << 20


def schema_of(file: LargeFile) -> "pa.Schema":
    """Columns and metadata. Raises DataError for a file that cannot be read, UsageError without pyarrow."""
    return _parquet(file).schema.to_arrow_schema() if _is_parquet(file) else _arrow(file).schema


def holds_bytes(kind: "pa.DataType") -> bool:
    """Whether values of this type are bytes, or structs with a field `bytes`, as `datasets` stores images."""
    return str(kind) in ("binary", "large_binary") or "bytes: binary" in str(kind)


def block_sizes(file: LargeFile) -> list[int]:
    """Rows of each block."""
    if _is_parquet(file):
        metadata = _parquet(file)
        return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    return [batch.num_rows for batch in _batches(file)]


def bytes_per_block(file: LargeFile) -> int:
    """What has to be read for one row at most."""
    if not _is_parquet(file):
        return 0
    metadata = _parquet(file)
    return max((metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)), default=0)


def values_of(file: LargeFile, column: str) -> list[Any]:
    """All values of a column."""
    if not _is_parquet(file):
        return _arrow(file)[column].to_pylist()
    with _opened(file) as opened:
        return opened.read(columns=[column], use_threads=False)[column].to_pylist()


def bytes_at(file: LargeFile, column: str, block: int, row: int) -> bytes | None:
    """The value of a column of bytes, or the field `bytes` of a column of structs; None where there is none."""
    values = _row_group(file, column, block) if _is_parquet(file) else _batches(file)[block][column]
    value = values[row]
    if hasattr(value, "keys"):  # a struct
        value = value["bytes"] if value.is_valid else value
    return value.as_py()


def _row_group(file: LargeFile, column: str, number: int) -> "pa.Array":
    key = file, column, number
    if kept := _KEPT.pop(key, None):
        _KEPT[key] = kept  # at the end, as the last one used
        return kept[0]
    with _opened(file) as opened:
        values = opened.read_row_group(number, columns=[column], use_threads=False)[column].combine_chunks()
    _KEPT[key] = values, values.nbytes
    while sum(size for _, size in [*_KEPT.values()]) > _BUDGET and (oldest := [*_KEPT][:-1]):
        _KEPT.pop(oldest[0], None)
    return values


#: row groups and their sizes, the last used ones at the end. Each access is one operation on a dict, and so needs no
#: lock: another thread may read a row group a second time, but never a wrong one
_KEPT: dict[tuple[LargeFile, str, int], tuple[Any, int]] = {}


def _is_parquet(file: LargeFile) -> bool:
    return file.path.endswith(".parquet")


def _opened(file: LargeFile) -> Any:
    """A Parquet file for one reader: a shared one is not safe among threads."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(file.path, metadata=_parquet(file), memory_map=True)


@lru_cache(maxsize=4096)
def _parquet(file: LargeFile) -> Any:
    """The metadata of a Parquet file."""
    pa = _pyarrow()
    import pyarrow.parquet as pq

    file.read(0, 1)  # or DataError: it changed
    try:
        return pq.read_metadata(file.path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from None


@lru_cache(maxsize=4096)
def _arrow(file: LargeFile) -> "pa.Table":
    """An Arrow file, of the kind of a stream (as `datasets` writes them) or of a file."""
    pa = _pyarrow()
    file.read(0, 1)
    try:
        mapped = pa.memory_map(file.path)
        opens = pa.ipc.open_file if file.read(0, 6) == b"ARROW1" else pa.ipc.open_stream
        return opens(mapped).read_all()
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from None


@lru_cache(maxsize=4096)
def _batches(file: LargeFile) -> "list[pa.RecordBatch]":
    return _arrow(file).to_batches()


def _unreadable(file: LargeFile, error: Exception) -> DataError:
    return DataError(f"{file} cannot be read: {str(error).splitlines()[0]}", help="copy or download it again")


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
    except ImportError:
        raise UsageError("Arrow and Parquet files need pyarrow", help="pip install 'vitcli[parquet]'") from None
    return pa
