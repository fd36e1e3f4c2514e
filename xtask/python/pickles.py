"""Writes the small PyTorch files that victor-weights' tests read.

    python xtask/python/pickles.py     # torch 2.15
"""

import collections
import pathlib

import torch

OUT = pathlib.Path(__file__).parents[2] / "crates/victor-weights/src/formats/pytorch/fixtures"


def state():
    shared = torch.arange(6, dtype=torch.float32)
    return collections.OrderedDict(
        single=torch.tensor([[1.5, -2.0, 0.25], [4.0, 5.0, 6.0]]),
        half=torch.tensor([0.5, -1.5], dtype=torch.float16),
        brain=torch.tensor([[2.0], [-3.0]], dtype=torch.bfloat16),
        tail_of_shared=shared[2:5],
        whole_shared=shared,
        parameter=torch.nn.Parameter(torch.tensor([7.0])),
        empty=torch.zeros(0, 3),
        count=torch.tensor(11),
    )


def main():
    OUT.mkdir(exist_ok=True)
    torch.save(state(), OUT / "zip.bin")
    torch.save(state(), OUT / "stream.bin", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": dict(state()), "epoch": 3, "lr": 0.1}, OUT / "wrapped.bin")
    torch.save({"view": torch.arange(6.0).reshape(2, 3).T, "plain": torch.ones(2)}, OUT / "strided.bin")
    torch.save({"path": pathlib.PurePosixPath("x")}, OUT / "function.bin")


if __name__ == "__main__":
    main()
