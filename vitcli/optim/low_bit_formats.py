"""How many numbers are stored in few bits: in blocks, each a scale in float32 and a short code for every number.

8 and 4 bits look a code up in a table: Dettmers et al. 2021 (arXiv 2110.02861) and Li et al. 2023 (arXiv 2309.01507),
with torchao's tables, block sizes and rounding. fp8 and bf16 are floating-point numbers of this size. A scale for each
block is what lets an average decay in them: by itself, bfloat16 rounds 0.999 x back to x.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

#: a block of zeros gets this scale, as in torchao
SMALLEST = 1e-12


@dataclass(frozen=True, kw_only=True)
class Format:
    """A subclass says how numbers up to the magnitude `largest` become codes, and codes become numbers."""

    bits: int  #: of a code
    dtype: torch.dtype  #: of the tensor of codes
    block: int  #: numbers that share a scale
    largest: float  #: what the largest magnitude of a block is scaled to

    def encode(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) float32, n a multiple of `block` -> n codes in a tensor of one dimension, (n / block,) scales"""
        blocks = values.view(-1, self.block)
        scales = blocks.abs().amax(1).clamp(min=SMALLEST) / self.largest
        return self.to_codes((blocks / scales[:, None]).view(-1)), scales

    def decode(self, codes: Tensor, scales: Tensor) -> Tensor:
        """What `encode` returned -> (n,) float32"""
        return (self.from_codes(codes).view(-1, self.block) * scales[:, None]).view(-1)

    def zeros(self, num: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Codes and scales of `num` zeros."""
        codes = torch.zeros(num * self.bits // (8 * self.dtype.itemsize), dtype=self.dtype, device=device)
        return codes, torch.zeros(num // self.block, device=device)

    def num_bytes(self, num: int) -> int:
        """Of the codes and scales of `num` numbers."""
        return num * self.bits // 8 + 4 * num // self.block

    def to_codes(self, scaled: Tensor) -> Tensor:
        raise NotImplementedError

    def from_codes(self, codes: Tensor) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class FloatFormat(Format):
    """Codes that are floating-point numbers themselves."""

    def to_codes(self, scaled: Tensor) -> Tensor:
        return scaled.to(self.dtype)

    def from_codes(self, codes: Tensor) -> Tensor:
        return codes.float()


@dataclass(frozen=True, kw_only=True)
class TableFormat(Format):
    """Codes that are places in a table of numbers; two of 4 bits share a byte."""

    table: Tensor  #: (2^bits,) float32, ascending
    #: (65536,) each, by the upper 16 bits of a float32: the code of the lowest number with these bits, and the number
    #: from which on the next code is used; there are never two such limits in a bin (a search takes ten times as long)
    starts: Tensor
    limits: Tensor

    def to_codes(self, scaled: Tensor) -> Tensor:
        bins = (scaled.view(torch.int32) >> 16) + 32768
        codes = self.starts.index_select(0, bins) + (scaled >= self.limits.index_select(0, bins))
        return codes if self.bits == 8 else codes[::2] << 4 | codes[1::2]

    def from_codes(self, codes: Tensor) -> Tensor:
        if self.bits == 4:
            codes = torch.stack([codes >> 4, codes & 15], dim=1).view(-1)
        return self.table.index_select(0, codes.int())


def moment_formats(name: str, device: torch.device) -> tuple[Format, Format]:
    """The formats of Adam's first moment, and of its second one, which has no negative numbers."""
    match name:
        case "bf16":
            format = FloatFormat(bits=16, dtype=torch.bfloat16, block=256, largest=1.0)
            return format, format
        case "fp8":
            dtype = torch.float8_e4m3fn
            format = FloatFormat(bits=8, dtype=dtype, block=256, largest=torch.finfo(dtype).max)
            return format, format
        case "8bit":
            tables, block = (dynamic_table(8, signed=True), dynamic_table(8, signed=False)), 256
        case "4bit":  # the second moment has no code for 0, because it is in the denominator
            tables, block = (dynamic_table(4, signed=True), torch.linspace(0, 1, 17)[1:]), 128
        case _:
            raise ValueError(f"there is no format {name}")
    first, second = (_table_format(table, block, device) for table in tables)
    return first, second


def dynamic_table(bits: int, *, signed: bool) -> Tensor:
    """(2^bits,) float32: 0, 1, and the centers of equal steps in each power of ten below 1, half as many in the next.

    Source: arXiv 2110.02861, sections 1.3 and 2.2; bitsandbytes and torchao have the same.
    """
    values, num_decades = [0.0, 1.0], bits - 1
    for decade in range(num_decades):
        edges = torch.linspace(0.1, 1, 2 ** (decade if signed else decade + 1) + 1)
        centers = 10.0 ** (decade + 1 - num_decades) * ((edges[:-1] + edges[1:]) / 2)
        values += [*centers.tolist(), *((-centers).tolist() if signed else ())]
    return torch.tensor(values).sort().values


def _table_format(table: Tensor, block: int, device: torch.device) -> TableFormat:
    thresholds, bits = _thresholds(table), (len(table) - 1).bit_length()
    upper = torch.arange(-32768, 32768, dtype=torch.int32) << 16
    lowest = torch.where(upper < 0, upper | 0xFFFF, upper).view(torch.float32)
    starts = torch.bucketize(lowest, thresholds, right=True)
    limits = torch.cat([thresholds, torch.tensor([torch.inf])])[starts]
    tables = {"table": table, "starts": starts.to(torch.uint8), "limits": limits}
    on_device = {name: tensor.to(device) for name, tensor in tables.items()}
    return TableFormat(bits=bits, dtype=torch.uint8, block=block, largest=1.0, **on_device)


def _thresholds(table: Tensor) -> Tensor:
    """The smallest number of each code but the first: the least x with x - lower >= (upper - lower) / 2 in float32.

    This is torchao's rounding to the nearest, also where x - lower is rounded.
    """
    lower, half = table[:-1], (table[1:] - table[:-1]) * 0.5
    near, infinity = (lower.double() + half.double()).float(), torch.tensor(torch.inf)
    candidates = torch.stack([near.nextafter(-infinity), near, near.nextafter(infinity)])  # one of them is it
    num_reached = (candidates - lower >= half).sum(0)
    return candidates.gather(0, 3 - num_reached[None])[0]
