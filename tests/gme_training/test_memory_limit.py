"""Want of memory is told as such: not as a full disk, and not as a defect of ours."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gme_data.errors import FoundryError, explain_memory_error
from gme_training.disk_space import explain_write_errors

LIMITED = """
import resource, sys
from pathlib import Path
from gme_data.errors import FoundryError
from gme_training.disk_space import explain_write_errors
resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
try:
    with explain_write_errors(Path(sys.argv[1])):
        bytearray(2**34)
except FoundryError as error:
    print(f"{error}\\n{error.hint}")
    sys.exit(error.exit_code)
"""


def no_memory_for_a_map() -> None:
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


@pytest.mark.parametrize(
    "work", [lambda: torch.empty(2**52), lambda: np.empty(2**52), lambda: bytearray(2**60), no_memory_for_a_map]
)
@pytest.mark.hardening("faults", "F30", "a limit on memory")
def test_what_python_numpy_and_torch_raise_is_out_of_memory(tmp_path: Path, work: Callable[[], object]) -> None:
    with pytest.raises(FoundryError, match=r"^Out of memory: ") as caught, explain_write_errors(tmp_path):
        work()
    assert caught.value.exit_code == 1
    assert "smaller batches" in str(caught.value.hint)


@pytest.mark.hardening("faults", "F30", "a limit on memory")
def test_a_limit_on_the_process_is_named(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("Out of memory: MemoryError. The process may take 8.00 GiB (`ulimit -v`).")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), RuntimeError("shapes differ"), ValueError("memory")])
def test_other_errors_are_not(error: Exception) -> None:
    assert explain_memory_error(error) is None
