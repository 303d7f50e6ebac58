def loss_of(step):
    return 1 / (step + 1)
