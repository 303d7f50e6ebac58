import torch

torch.set_num_threads(1)


def default(folder):
    from stable_baselines3 import A2C
    from stable_baselines3.common.logger import configure

    model = A2C("MlpPolicy", "CartPole-v1", seed=0, device="cpu")
    model.set_logger(configure(folder, ["tensorboard"]))
    model.learn(1000)
    model.logger.close()
