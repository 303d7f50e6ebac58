from torch_pieces import dataset, loader, loss_of, model, optimizer, torch


def default(folder):
    from tensorboardX import SummaryWriter

    batches = torch.utils.data.DataLoader(dataset, batch_size=4)
    with SummaryWriter(folder) as writer:
        writer.add_graph(model, next(iter(batches))[0])
        for step, (x, y) in enumerate(batches):
            loss = loss_of(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            writer.add_scalar("loss", loss, step)
            writer.add_histogram("weights", model.weight, step)
        writer.add_hparams({"lr": 0.1}, {"final": loss}, "hparams")
