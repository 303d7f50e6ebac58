import torch
from transformers import PretrainedConfig, PreTrainedModel, Trainer, TrainingArguments, set_seed
from transformers.integrations import TensorBoardCallback

set_seed(0)
torch.set_num_threads(1)


class Net(PreTrainedModel):
    config_class = PretrainedConfig

    def __init__(self, config):
        super().__init__(config)
        self.layer = torch.nn.Linear(3, 1)
        self.post_init()

    def forward(self, x, labels=None):
        logits = self.layer(x)
        return {"loss": torch.nn.functional.mse_loss(logits, labels), "logits": logits}


model = Net(PretrainedConfig())
dataset = [{"x": torch.full((3,), n / 10), "labels": torch.full((1,), n / 5)} for n in range(16)]


def default(folder, trainings=2):
    callback = TensorBoardCallback()
    callback.logging_dir = folder
    args = TrainingArguments(output_dir="out", report_to="none", max_steps=6, logging_steps=1)
    trainer = Trainer(model=model, args=args, train_dataset=dataset, callbacks=[callback])
    for _ in range(trainings):
        trainer.train()
