from lightning.pytorch.loggers import TensorBoardLogger as TensorBoardLogger
