"""Gradients of a loss over a whole batch within the memory of a part of it, exact (Gao et al. 2021, GradCache).

1. Encode every micro-batch. As many graphs as the memory allows are kept, the others are never built.
2. The loss over all vectors, and its gradient with respect to them.
3. Micro-batches without a graph are encoded again, with the random numbers of the first time; each sends its vectors'
   gradients on to the parameters.

What is kept is not encoded twice: with all graphs kept this is an ordinary step, with none the plain gradient cache.
Gradients are added up here, not in `Parameter.grad`, so no hook of an engine sees a part of one. Knows neither items
nor losses nor ranks; `loss_of` may gather vectors from other processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
Gradients = list[Tensor | None]
"""One for each parameter; None where the loss does not reach it."""


def cached_gradients(
    encode: Callable[[T], Tensor],
    micro_batches: Sequence[T],
    loss_of: Callable[[Tensor], Tensor],
    parameters: Sequence[Tensor],
    *,
    kept_bytes: int,
    frozen: Sequence[Tensor] = (),
) -> tuple[Tensor, Gradients]:
    """The loss and its gradient with respect to `parameters`.

    Args:
        encode: A micro-batch to its vectors [n, d]; called once or twice.
        micro_batches: At least one.
        loss_of: All vectors [N, d], in the order of the micro-batches, to a scalar. May use `parameters` itself.
        parameters: Those that ask for gradients.
        kept_bytes: Memory for the graphs that are kept; 0 encodes every micro-batch twice.
        frozen: Weights besides `parameters`; graphs refer to them, but they take no memory of their own.

    Returns:
        The loss without its graph, and the gradients.
    """
    weights = {weight.untyped_storage().data_ptr() for weight in (*parameters, *frozen)}
    first = _encode_all(encode, micro_batches, kept_bytes, weights)
    loss, parts, gradients = _contrasted([one.vectors for one in first], loss_of, parameters)
    _descend(
        [(one.vectors, part) for one, part in zip(first, parts, strict=True) if one.random is None],
        parameters,
        gradients,
    )
    again = [one.random for one in first]
    del first  # with graphs and vectors, which grow with the batch
    for micro_batch, random, part in zip(micro_batches, again, parts, strict=True):
        if random is not None:
            with random.replayed(), torch.enable_grad():
                vectors = encode(micro_batch)
            _descend([(vectors, part)], parameters, gradients)
    return loss, gradients


def _contrasted(
    encoded: Sequence[Tensor], loss_of: Callable[[Tensor], Tensor], parameters: Sequence[Tensor]
) -> tuple[Tensor, Sequence[Tensor], Gradients]:
    """The loss without its graph, and its gradients with respect to each micro-batch's vectors and to `parameters`."""
    vectors = torch.cat([one.detach() for one in encoded]).requires_grad_()
    loss = loss_of(vectors)
    upstream, *direct = torch.autograd.grad(loss, [vectors, *parameters], allow_unused=True)
    return loss.detach(), torch.split(upstream, [len(one) for one in encoded]), list(direct)


@dataclass(frozen=True, slots=True)
class _Random:
    """The state of all random generators before a micro-batch was encoded."""

    cpu: Tensor
    cuda: list[Tensor]

    @classmethod
    def now(cls) -> _Random:
        # A rank on the CPU of a machine with GPUs has not touched them, and asking would make it.
        used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state_all() if used else [])

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Within it random numbers are those of then; afterwards they go on as if nothing had been."""
        with torch.random.fork_rng(devices=range(len(self.cuda))):
            torch.set_rng_state(self.cpu)
            if self.cuda:
                torch.cuda.set_rng_state_all(self.cuda)
            yield


@dataclass(frozen=True, slots=True)
class _Encoded:
    """Vectors [n, d] with their graph, or without it and with what it takes to encode them again."""

    vectors: Tensor
    random: _Random | None


def _encode_all(
    encode: Callable[[T], Tensor], micro_batches: Sequence[T], kept_bytes: int, weights: set[int]
) -> list[_Encoded]:
    """Keeps graphs from the front until one does not fit; a graph's size is known only once it is there."""
    encoded: list[_Encoded] = []
    left, largest = kept_bytes, 0
    for micro_batch in micro_batches:
        # The next graph is taken to be as large as the largest so far.
        if left <= 0 or left < largest:
            random = _Random.now()
            with torch.no_grad():
                encoded.append(_Encoded(encode(micro_batch), random))
            continue
        with torch.enable_grad(), _counted(weights) as size:
            encoded.append(_Encoded(encode(micro_batch), None))
        left -= size[0]
        largest = max(largest, size[0])
    return encoded


@contextmanager
def _counted(weights: set[int]) -> Iterator[list[int]]:
    """Counts the bytes that graphs built within it hold on to, each storage once and no weights."""
    size, seen = [0], set(weights)

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            size[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield size


def _descend(outputs: Sequence[tuple[Tensor, Tensor]], parameters: Sequence[Tensor], gradients: Gradients) -> None:
    """Add to `gradients` what the upstream gradients of some vectors say."""
    reached = [(vectors, upstream) for vectors, upstream in outputs if vectors.requires_grad]
    if not reached:
        return
    vectors, upstream = zip(*reached, strict=True)
    found = torch.autograd.grad(vectors, parameters, upstream, allow_unused=True)
    for place, part in enumerate(found):
        own = gradients[place]
        if part is not None:
            # Not in place: what autograd returns may be a view that repeats, or be shared with another gradient.
            gradients[place] = part if own is None else own + part
