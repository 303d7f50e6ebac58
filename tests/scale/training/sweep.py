"""A sweep on a local Ray cluster: each trial logs with our class in its worker process.

Started with the repo, the folder of the runs, a folder for Ray itself, the number of trials and the number of
concurrent ones.
"""

import os
import sys
import time

import ray
from ray import tune

repo_id, parent, ray_folder, trials, at_once = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
STEPS = 60


def trainable(config):
    from hf_summary_writer import HFSummaryWriter

    logdir = os.path.join(parent, f"trial-{config['number']:02d}")
    with HFSummaryWriter(repo_id, logdir=logdir, commit_every=0.01, close_timeout=60) as writer:
        for step in range(STEPS):
            writer.add_scalar("loss", config["number"] / (step + 1), step)
            time.sleep(0.02)
    tune.report({"pid": os.getpid()})


def start():
    """Start a cluster, with retries: on a busy machine the start may exceed Ray's timeout."""
    for left in (2, 1, 0):
        try:
            ray.init(
                num_cpus=at_once,
                include_dashboard=False,
                log_to_driver=False,
                object_store_memory=80 * 2**20,
                _temp_dir=ray_folder,
            )
        except Exception:  # noqa: PERF203
            ray.shutdown()
            if not left:
                raise
        else:
            return


start()
try:
    results = tune.Tuner(
        trainable,
        param_space={"number": tune.grid_search(list(range(trials)))},
        # Reuse workers: starting one takes longer than a trial.
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(name="sweep", storage_path=os.path.join(ray_folder, "results"), verbose=0),
    ).fit()
    assert not results.errors, results.errors
    sys.stdout.write(f"workers {len({result.metrics['pid'] for result in results})}\n")
finally:
    ray.shutdown()
