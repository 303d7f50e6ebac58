import torch

torch.manual_seed(0)
torch.set_num_threads(1)
inputs = torch.randn(24, 3)
targets = inputs.sum(1, keepdim=True)
dataset = torch.utils.data.TensorDataset(inputs, targets)
loader = torch.utils.data.DataLoader(dataset, batch_size=4)
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loss_of = torch.nn.functional.mse_loss
