import pathlib

import lightning.pytorch as pl
from torch_pieces import dataset, loader, loss_of, model, optimizer, torch

pl.seed_everything(0)


class Module(pl.LightningModule):
    def __init__(self, lr=0.1):  # noqa: ARG002 - save_hyperparameters() finds it
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(3, 1)
        self.example_input_array = torch.zeros(1, 3)

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, _):
        loss = loss_of(self(batch[0]), batch[1])
        self.log("loss", loss)
        self.logger.experiment.add_scalar("own", loss.detach(), self.global_step)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


module = Module()


def default(folder):
    from lightning.pytorch.loggers import TensorBoardLogger

    place = pathlib.Path(folder)
    logger = TensorBoardLogger(place.parent, name="", version=place.name, log_graph=True)
    pl.Trainer(logger=logger, max_epochs=2, log_every_n_steps=1).fit(module, loader)
