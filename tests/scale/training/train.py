"""A Ray Train job of two workers that both log into one folder.

Started with the repo, the logdir and a folder for Ray itself.
"""

import os
import sys

import ray
from ray.train import RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchTrainer

repo_id, logdir, ray_folder = sys.argv[1:4]


def train():
    from hf_summary_writer import HFSummaryWriter

    rank = get_context().get_world_rank()
    with HFSummaryWriter(repo_id, logdir=logdir, commit_every=0.03, close_timeout=60) as writer:
        for step in range(60):
            writer.add_scalar(f"loss/{rank}", 1 / (step + 1), step)


ray.init(
    num_cpus=2,
    include_dashboard=False,
    log_to_driver=False,
    object_store_memory=80 * 2**20,
    _temp_dir=ray_folder,
)
try:
    TorchTrainer(
        train,
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}),
        run_config=RunConfig(name="train", storage_path=os.path.join(ray_folder, "results")),
    ).fit()
finally:
    ray.shutdown()
