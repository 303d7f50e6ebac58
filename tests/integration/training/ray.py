import os
import pathlib

os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray
from ray import tune

storage = str(pathlib.Path("storage").resolve())
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)


def trainable(config):
    for step in range(4):
        tune.report({"loss": config["lr"] / (step + 1), "weights": [config["lr"]] * 3})


def default(folder):
    place = pathlib.Path(folder).resolve()
    tune.Tuner(
        trainable,
        param_space={"lr": tune.grid_search([0.1, 0.2])},
        run_config=tune.RunConfig(name=place.name, storage_path=str(place.parent)),
    ).fit()
