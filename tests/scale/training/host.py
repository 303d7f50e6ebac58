"""A training on one host that logs scalars and incompressible images until a stop file exists."""

import os
import sys
import time
from pathlib import Path

import numpy as np

from hf_summary_writer import HFSummaryWriter

repo_id, logdir, stop = sys.argv[1:4]
noise = np.random.default_rng(os.getpid())
with HFSummaryWriter(repo_id, logdir=logdir, close_timeout=90) as writer:
    step = 0
    while not Path(stop).exists():
        writer.add_scalar("loss", 1 / (step + 1), step)
        if step % 20 == 0:
            writer.add_image("noise", noise.integers(0, 256, (3, 32, 32), dtype=np.uint8), step)
            writer.flush()
            os.write(1, f"flushed {step + 1}\n".encode())
        step += 1
        time.sleep(0.002)
    writer.flush()
    os.write(1, b"ends\n")
