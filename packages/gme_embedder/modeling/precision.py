"""The precision in which a device computes: bfloat16 if its hardware multiplies it, else float32.

bfloat16 is requested because it is fast. A processor without it (x86 before AVX512, for one) emulates it by float32
multiplications, ten to fifty times slower than float32 itself, and less exact.
"""

from __future__ import annotations

from typing import Literal

Precision = Literal["float32", "bfloat16"]


def has_bfloat16(device: str) -> bool:
    """Tells whether the hardware of `device`, as torch names it, multiplies bfloat16."""
    import torch

    return not device.startswith("cpu") or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def native_precision(requested: Precision, device: str) -> Precision:
    """Returns the requested precision, but float32 for bfloat16 on a `device` without it."""
    return "float32" if requested == "bfloat16" and not has_bfloat16(device) else requested
