"""Accelerators by name: their memory and their peak speed by data sheet. Queries no device."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gme_data.errors import FoundryError, did_you_mean


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A kind of device.

    Attributes:
        name: Its name in ``--gpus``.
        memory: The bytes that a program can see.
        bf16: The peak of dense bfloat16 products in FLOP/s; None without hardware for it.
        fp32: The peak of float32 products without tensor cores in FLOP/s; torch uses none for float32 by default.
    """

    name: str
    memory: float
    bf16: float | None
    fp32: float

    def peak(self, *, autocast: bool) -> float:
        """Returns the peak FLOP/s of a stage's products."""
        # Bfloat16 without hardware for it runs no faster than float32.
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
"""The known accelerators, by name."""


def parse_fleet(text: str) -> tuple[int, Accelerator]:
    """Parses the number and kind of devices, such as ``8xA100-80G``.

    Raises:
        FoundryError: Not of that form, or an unknown accelerator.
    """
    hint = f"Known: {', '.join(ACCELERATORS)}."
    match = re.fullmatch(r"([1-9]\d*)x(\S+)", text.strip())
    if not match:
        raise FoundryError(f"--gpus {text}: expected COUNTxNAME, such as 8xA100-80G.", hint=hint)
    count, name = match.groups()
    by_name = {accelerator.name.lower(): accelerator for accelerator in ACCELERATORS.values()}
    if name.lower() not in by_name:
        near = did_you_mean(name.upper(), ACCELERATORS)
        raise FoundryError(f"--gpus {text}: unknown accelerator '{name}'.{near}", hint=hint)
    return int(count), by_name[name.lower()]
