"""Which precision a device computes in: bfloat16 where it multiplies it itself, else float32.

bfloat16 is asked for because it is fast. A processor without it (x86 before AVX512, for one) makes it up of float32
multiplications, ten to fifty times slower than float32 itself, and for a result that is less exact.
"""

from __future__ import annotations

from typing import Literal

Precision = Literal["float32", "bfloat16"]


def has_bfloat16(device: str) -> bool:
    """Whether `device`, as torch names it, multiplies bfloat16 itself."""
    import torch

    return not device.startswith("cpu") or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def native_precision(wanted: Precision, device: str) -> Precision:
    """`wanted`, unless it is bfloat16 and `device` has none: then float32."""
    return "float32" if wanted == "bfloat16" and not has_bfloat16(device) else wanted
