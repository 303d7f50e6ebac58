"""A distributed training as a user writes it: every rank computes, averages the gradient with the others, and logs.

Started by `torchrun` with the repo, a pattern for the logdir with `{rank}` for the rank, the number of the attempt, and
the number of steps.
"""

import os
import sys
import time

import torch
from torch import distributed

from hf_summary_writer import HFSummaryWriter

repo_id, logdir, attempt, steps = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
rank = int(os.environ["RANK"])
folder = logdir.format(rank=rank)
distributed.init_process_group("gloo")
with HFSummaryWriter(repo_id, logdir=folder, commit_every=0.03, push_on_sigterm=True, close_timeout=20) as writer:
    weights = torch.zeros(100)
    for step in range(steps):
        gradient = torch.full_like(weights, rank + 1.0)
        distributed.all_reduce(gradient)
        weights -= 0.1 * gradient
        writer.add_scalar(f"loss/{attempt}/{rank}", weights.sum(), step)
        if step % 10 == 9:
            writer.flush()
            # One write per line, so that the lines of several ranks do not mix.
            os.write(1, f"flushed {attempt} {rank} {step + 1} {os.getpid()}\n".encode())
            time.sleep(0.02)
distributed.destroy_process_group()
