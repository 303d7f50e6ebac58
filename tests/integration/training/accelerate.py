import pathlib

from torch_pieces import dataset, loader, loss_of, model, optimizer, torch


def training_step(model, batch):
    return loss_of(model(batch[0]), batch[1])


def default(folder):
    from accelerate import Accelerator

    place = pathlib.Path(folder)
    accelerator = Accelerator(log_with="tensorboard", project_dir=str(place.parent))
    accelerator.init_trackers(place.name, config={"lr": 0.1, "optimizer": "sgd"})
    prepared, stepper, batches = accelerator.prepare(model, optimizer, loader)
    for step, batch in enumerate(batches):
        loss = training_step(prepared, batch)
        accelerator.backward(loss)
        stepper.step()
        stepper.zero_grad()
        accelerator.log({"loss": loss.item(), "both": {"loss": loss.item(), "step": step}}, step=step)
    accelerator.end_training()
