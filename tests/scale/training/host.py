"""A training on one host: logs scalars and pictures of noise, which do not compress, until a file tells it to stop."""

import os
import sys
import time

import numpy

from hf_summary_writer import HFSummaryWriter

repo_id, logdir, stop = sys.argv[1:4]
noise = numpy.random.default_rng(os.getpid())
with HFSummaryWriter(repo_id, logdir=logdir, commit_every=0.02, close_timeout=90) as writer:
    step = 0
    while not os.path.exists(stop):
        writer.add_scalar("loss", 1 / (step + 1), step)
        if step % 20 == 0:
            writer.add_image("noise", noise.integers(0, 256, (3, 32, 32), dtype=numpy.uint8), step)
            writer.flush()
            os.write(1, f"flushed {step + 1}\n".encode())
        step += 1
        time.sleep(0.002)
