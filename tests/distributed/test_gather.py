"""Two real gloo ranks share one batch; loss and gradients equal those of one process that has it whole."""

from __future__ import annotations

import multiprocessing
import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from gme_training.batches import share_out
from gme_training.gather import gather_rows
from gme_training.loss import contrast

QUERIES, CANDIDATES, WIDTH = 9, 14, 6


def problem():
    generator = torch.Generator().manual_seed(4)
    inputs = torch.randn(QUERIES + CANDIDATES, WIDTH, generator=generator, dtype=torch.float64)
    weight = torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)
    masked = torch.rand(QUERIES, CANDIDATES, generator=generator) < 0.15
    targets = torch.arange(QUERIES) % 7
    masked[torch.arange(QUERIES), targets] = False
    return inputs, weight, targets, masked


def encode(inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tanh(inputs @ weight), dim=1)


def loss_of(vectors, targets, masked, rows):
    queries, candidates = vectors.split([QUERIES, CANDIDATES])
    return contrast(queries, candidates, targets, masked, rows=rows, temperature=0.1, symmetric=True).loss


def run_rank(rank: int, ranks: int, port: int, folder: Path) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    inputs, weight, targets, masked = problem()
    weight.requires_grad_()
    parts = share_out([1 + i % 5 for i in range(len(inputs))], ranks)
    vectors = gather_rows(encode(inputs[parts[rank]], weight), [len(part) for part in parts])
    vectors = vectors[torch.argsort(torch.tensor([slot for part in parts for slot in part]))]
    loss = loss_of(vectors, targets, masked, torch.arange(rank, QUERIES, ranks)) * ranks / QUERIES
    loss.backward()
    dist.all_reduce(weight.grad)
    value = loss.detach().clone()
    dist.all_reduce(value)
    torch.save({"loss": value / ranks, "grad": weight.grad / ranks}, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_together_equal_one_process(ranks: int, tmp_path: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=run_rank, args=(rank, ranks, port, tmp_path)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * ranks

    inputs, weight, targets, masked = problem()
    weight.requires_grad_()
    loss = loss_of(encode(inputs, weight), targets, masked, torch.arange(QUERIES)) / QUERIES
    loss.backward()
    for rank in range(ranks):
        got = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(got["loss"], loss.detach(), atol=1e-12, rtol=0)
        torch.testing.assert_close(got["grad"], weight.grad, atol=1e-12, rtol=0)
