"""Gradients of a loss over a whole batch within the memory of a part of it, exact (Gao et al. 2021, GradCache).

1. Encode every micro-batch. As many autograd graphs as the memory allows are retained, the others are never built.
2. Compute the loss over all vectors, and its gradient with respect to them.
3. Encode the micro-batches without a graph again, with the random numbers of the first time, and backpropagate the
   gradients of each micro-batch's vectors to the parameters.

A micro-batch whose graph is retained is encoded once: with all graphs retained this is an ordinary step, with none the
plain gradient cache. Gradients are added up here, not in `Parameter.grad`, so no hook of an engine sees a partial one.
Knows neither items nor losses nor ranks; `loss_of` may gather vectors from other processes.
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
"""One gradient for each parameter; None where the loss does not depend on it."""


def cached_gradients(
    encode: Callable[[T], Tensor],
    micro_batches: Sequence[T],
    loss_of: Callable[[Tensor], Tensor],
    parameters: Sequence[Tensor],
    *,
    retained_bytes: int,
    frozen: Sequence[Tensor] = (),
) -> tuple[Tensor, Gradients]:
    """Computes the loss and its gradient with respect to `parameters`.

    Args:
        encode: Maps a micro-batch to its vectors, [n, d]; called once or twice for each.
        micro_batches: At least one.
        loss_of: Maps all vectors, [N, d], in the order of the micro-batches, to a scalar. May use `parameters` itself.
        parameters: The parameters that require gradients.
        retained_bytes: Memory for retained graphs; 0 encodes every micro-batch twice.
        frozen: Weights besides `parameters`, which graphs refer to but which take no memory of the graphs.

    Returns:
        The loss without its graph, and the gradients.
    """
    weights = {weight.untyped_storage().data_ptr() for weight in (*parameters, *frozen)}
    encoded = _encode_all(encode, micro_batches, retained_bytes, weights)
    vectors = torch.cat([micro_batch.vectors.detach() for micro_batch in encoded]).requires_grad_()
    loss = loss_of(vectors)
    # `direct` are gradients that do not go through the vectors, such as that of a learned temperature.
    upstream, *direct = torch.autograd.grad(loss, [vectors, *parameters], allow_unused=True)
    gradients: Gradients = list(direct)
    vector_gradients = torch.split(upstream, [len(micro_batch.vectors) for micro_batch in encoded])
    # One backward through all retained graphs: the gradients of a parameter are summed while it runs.
    backward_into(
        gradients,
        parameters,
        [
            (micro_batch.vectors, gradient)
            for micro_batch, gradient in zip(encoded, vector_gradients, strict=True)
            if micro_batch.random_state is None
        ],
    )
    random_states = [micro_batch.random_state for micro_batch in encoded]
    # The retained graphs and all vectors grow with the batch: free them before the first graph is built again.
    loss = loss.detach()
    del encoded, vectors
    for micro_batch, random_state, gradient in zip(micro_batches, random_states, vector_gradients, strict=True):
        if random_state is not None:
            with random_state.restored(), torch.enable_grad():
                recomputed = encode(micro_batch)
            backward_into(gradients, parameters, [(recomputed, gradient)])
    return loss, gradients


@dataclass(frozen=True, slots=True)
class _RandomState:
    """The state of all random generators before a micro-batch was encoded, so that dropout repeats itself."""

    cpu: Tensor
    cuda: list[Tensor]

    @classmethod
    def capture(cls) -> _RandomState:
        # A rank on the CPU of a machine with GPUs has not initialised CUDA, and reading its state would.
        initialised = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state_all() if initialised else [])

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Sets the generators to this state within the context, and back to their own afterwards."""
        with torch.random.fork_rng(devices=range(len(self.cuda))):
            torch.set_rng_state(self.cpu)
            if self.cuda:
                torch.cuda.set_rng_state_all(self.cuda)
            yield


@dataclass(frozen=True, slots=True)
class _Encoded:
    """The vectors of a micro-batch, [n, d].

    Attributes:
        vectors: With their graph if `random_state` is None, else without.
        random_state: The state with which the micro-batch has to be encoded again.
    """

    vectors: Tensor
    random_state: _RandomState | None


def _encode_all(
    encode: Callable[[T], Tensor], micro_batches: Sequence[T], retained_bytes: int, weights: set[int]
) -> list[_Encoded]:
    """Encodes the micro-batches, retaining graphs from the front until the next one may not fit."""
    encoded: list[_Encoded] = []
    free_bytes, largest = retained_bytes, 0
    for micro_batch in micro_batches:
        # The size of a graph is known only once it is built; the next is assumed to be as large as the largest so far.
        if free_bytes <= 0 or free_bytes < largest:
            random_state = _RandomState.capture()
            with torch.no_grad():
                encoded.append(_Encoded(encode(micro_batch), random_state))
            continue
        with torch.enable_grad(), _count_graph_bytes(weights) as size:
            encoded.append(_Encoded(encode(micro_batch), None))
        free_bytes -= size[0]
        largest = max(largest, size[0])
    return encoded


@contextmanager
def _count_graph_bytes(weights: set[int]) -> Iterator[list[int]]:
    """Counts the bytes that graphs built within the context hold, each storage once, and no weights."""
    size, counted = [0], set(weights)

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in counted:
            counted.add(storage.data_ptr())
            size[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield size


def backward_into(gradients: Gradients, parameters: Sequence[Tensor], outputs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Backpropagates pairs (vectors, gradient of the vectors) and adds the gradients of `parameters` to `gradients`."""
    # Vectors that depend on no trained parameter have no graph: words in a table that is frozen, for example.
    with_graph = [(vectors, upstream) for vectors, upstream in outputs if vectors.requires_grad]
    if not with_graph:
        return
    vectors, upstream = zip(*with_graph, strict=True)
    for position, gradient in enumerate(torch.autograd.grad(vectors, parameters, upstream, allow_unused=True)):
        accumulated = gradients[position]
        if gradient is not None:
            # Not in place: what autograd returns may be an expanded view, or be shared with another gradient.
            gradients[position] = gradient if accumulated is None else accumulated + gradient
