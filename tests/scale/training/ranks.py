"""A distributed training as a user writes it: every rank computes, agrees with the others on a gradient, and logs.

Started by `torchrun` with the repo and a pattern for the logdir, in which `{rank}` stands for the rank.
"""

import os
import sys
import time

import torch
from torch import distributed

from hf_summary_writer import HFSummaryWriter

repo_id, logdir, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
rank, attempt = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
folder = logdir.format(rank=rank)
distributed.init_process_group("gloo")
with HFSummaryWriter(repo_id, logdir=folder, commit_every=0.03, push_on_sigterm=True, close_timeout=20) as writer:
    weights = torch.zeros(100)
    step = 0
    # The first attempt goes on until somebody of it is killed.
    while attempt == 0 or step < steps:
        gradient = torch.full_like(weights, rank + 1.0)
        distributed.all_reduce(gradient)
        weights -= 0.1 * gradient
        writer.add_scalar(f"loss/{attempt}/{rank}", weights.sum(), step)
        step += 1
        if step % 10 == 0:
            writer.flush()
            # One line at once, so that the lines of several ranks do not mix.
            os.write(1, f"flushed {attempt} {rank} {step} {os.getpid()}\n".encode())
            time.sleep(0.02)
distributed.destroy_process_group()
