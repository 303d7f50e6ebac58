from ignite.engine import Engine, Events
from torch_pieces import dataset, loader, loss_of, model, optimizer, torch


def step(_, batch):
    loss = loss_of(model(batch[0]), batch[1])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


trainer = Engine(step)


def default(folder):
    from ignite.handlers.tensorboard_logger import TensorboardLogger

    with TensorboardLogger(logdir=folder) as logger:
        logger.attach_output_handler(
            trainer,
            event_name=Events.ITERATION_COMPLETED,
            tag="training",
            output_transform=lambda loss: {"loss": loss},
        )
        trainer.run(loader, max_epochs=2)
