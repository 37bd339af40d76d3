"""Accelerators by name: their memory and the speed that their makers promise. Knows data; asks no device."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gme_data.errors import FoundryError, did_you_mean


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One device.

    Attributes:
        name: As it is asked for.
        memory: Bytes that a program can see.
        bf16: Peak of dense bfloat16 products in FLOP/s; None without hardware for it.
        fp32: Peak of float32 products without tensor cores in FLOP/s, what torch uses unless told otherwise.
    """

    name: str
    memory: float
    bf16: float | None
    fp32: float

    def peak(self, *, autocast: bool) -> float:
        """FLOP/s of the products of a stage. Bfloat16 without hardware for it runs no faster than float32."""
        return self.bf16 if autocast and self.bf16 else self.fp32


_MIB, _TERA = 2**20, 1e12
# Memory: total MiB as nvidia-smi reports it. Peaks: NVIDIA's data sheets, TFLOP/s, dense: where a sheet prints the
# number "with sparsity", half of it. SXM modules where there are several forms.
_TABLE = {
    "A100-40G": (40_960, 312, 19.5),  # A100 data sheet, June 2021
    "A100-80G": (81_920, 312, 19.5),
    "H100-80G": (81_559, 989.4, 67),  # H100 data sheet: 1,979 with sparsity
    "H200-141G": (143_771, 989.4, 67),  # H200 data sheet
    "L40S-48G": (46_068, 362, 91.6),  # L40S data sheet: 733 with sparsity
    "A10G-24G": (23_028, 70, 35),  # A10G data sheet, the form that clouds rent
    "L4-24G": (23_034, 121, 30.3),  # L4 data sheet: 242 with sparsity
    "V100-32G": (32_768, None, 15.7),  # V100 data sheet: tensor cores for float16 alone
}
ACCELERATORS = {
    name: Accelerator(name, memory * _MIB, bf16 * _TERA if bf16 else None, fp32 * _TERA)
    for name, (memory, bf16, fp32) in _TABLE.items()
}
"""Those that are known, by name."""


def parse_fleet(text: str) -> tuple[int, Accelerator]:
    """Number and kind of the devices that ``8xA100-80G`` names.

    Raises:
        FoundryError: Not of that form, or an unknown accelerator.
    """
    found = re.fullmatch(r"([1-9]\d*)x(\S+)", text.strip())
    if not found:
        raise FoundryError(f"--gpus {text}: expected COUNTxNAME, such as 8xA100-80G.", hint=_known())
    count, name = found.groups()
    by_name = {known.lower(): known for known in ACCELERATORS}
    if name.lower() not in by_name:
        near = did_you_mean(name.upper(), ACCELERATORS)
        raise FoundryError(f"--gpus {text}: unknown accelerator '{name}'.{near}", hint=_known())
    return int(count), ACCELERATORS[by_name[name.lower()]]


def _known() -> str:
    return f"Known: {', '.join(ACCELERATORS)}."
