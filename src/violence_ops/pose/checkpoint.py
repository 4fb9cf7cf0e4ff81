"""Reading a PyTorch checkpoint that came from outside: its tensors, and nothing that it wants to run.

A checkpoint is a pickle. PyTorch's restricted loader takes tensors and plain containers only, and it works in a child
process with bounded memory and time, because even that loader parses what a stranger wrote.
"""

from __future__ import annotations

import pickle
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from violence_ops.deployment import bare_environment, python_module
from violence_ops.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

_SECONDS: Final = 120
_MEMORY: Final = 2 << 30
"""Bytes that the child may take beyond what its libraries need."""
_SIZE: Final = 1 << 29
"""Bytes that all tensors may have together."""
_REFUSED: Final = 3
_NUMPY: Final = ("numpy.core.multiarray", "numpy._core.multiarray")
_UNREAD: Final = (
    "numpy.ndarray",
    "numpy.dtype",
    *(f"{home}.{name}" for home in _NUMPY for name in ("_reconstruct", "scalar")),
)
"""What MMEngine's `meta` is full of: names, colours and sigmas of the data set as NumPy arrays. They are skipped."""


class CheckpointError(UserError):
    """The file is no checkpoint that is read here."""


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint's `state_dict`, by name, on the CPU.

    With MMEngine's EMA hook that dict holds the averaged weights; `ema_state_dict`, if there, the last plain ones.

    Raises:
        CheckpointError: not a checkpoint, or one that holds more than tensors and plain containers, or is too large.
    """
    from safetensors.torch import load

    environment = bare_environment(python=True) | {"OMP_NUM_THREADS": "1"}
    try:
        child = subprocess.run(
            python_module(__name__, str(path)),
            stdin=subprocess.DEVNULL, capture_output=True, timeout=2 * _SECONDS, env=environment, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise CheckpointError(f"{path.name} is refused: reading it took more than {2 * _SECONDS} s.") from None
    if child.returncode == _REFUSED:
        raise CheckpointError(f"{path.name} is refused: {child.stdout.decode(errors='replace')}.")
    if child.returncode != 0:
        raise CheckpointError(f"{path.name} is refused: it cannot be read as a PyTorch checkpoint.")
    return load(child.stdout)


class _Unread:
    """Stands where the pickle wants a NumPy object: takes whatever it is given and keeps nothing."""

    def __new__(cls, *_: Any) -> _Unread:
        return object.__new__(cls)

    def __init__(self, *_: Any) -> None:
        return

    def __setstate__(self, _: Any) -> None:
        return


def main() -> None:
    """The child: read the checkpoint named by the first argument, write its tensors as safetensors to stdout."""
    import torch
    from safetensors.torch import save

    _bound()
    try:
        with torch.serialization.safe_globals([(_Unread, name) for name in _UNREAD]):
            content = torch.load(sys.argv[1], map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]{1,80})", str(error))
        _refuse(f"it wants to run {wanted[1]}" if wanted else "it holds more than tensors and plain containers")
    tensors = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not tensors:
        _refuse("it has no state_dict")
    total = 0
    for name, value in tensors.items():
        if not isinstance(name, str) or type(value) not in (torch.Tensor, torch.nn.Parameter):
            _refuse("its state_dict holds more than named tensors")
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_complex() or value.is_quantized:
            _refuse("its state_dict holds tensors of an unusual kind")
        total += value.numel() * value.element_size()
    if total > _SIZE:
        _refuse(f"its tensors have {total / 2**20:.0f} MiB")
    sys.stdout.buffer.write(save({name: value.detach().contiguous().clone() for name, value in tensors.items()}))


def _bound() -> None:
    """Limit memory and processor time from now on; more ends the process."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + _MEMORY, mapped + _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _refuse(reason: str) -> NoReturn:
    sys.stdout.write(reason)
    sys.stdout.flush()
    sys.exit(_REFUSED)


if __name__ == "__main__":
    main()
