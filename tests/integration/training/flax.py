import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training.train_state import TrainState

inputs = jax.random.normal(jax.random.key(0), (16, 3))
net = nn.Dense(1)
state = TrainState.create(apply_fn=net.apply, params=net.init(jax.random.key(1), inputs), tx=optax.sgd(0.1))


@jax.jit
def train_step(state):
    loss, gradients = jax.value_and_grad(
        lambda p: jnp.mean((net.apply(p, inputs) - inputs.sum(1, keepdims=True)) ** 2)
    )(state.params)
    return state.apply_gradients(grads=gradients), loss


def default(folder):
    from clu import metric_writers

    writer, current = metric_writers.SummaryWriter(folder), state
    for step in range(6):
        current, loss = train_step(current)
        writer.write_scalars(step, {"loss": loss})
    writer.close()
