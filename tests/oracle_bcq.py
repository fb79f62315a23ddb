"""One step of the reference BCQ (sfujim/BCQ, continuous_BCQ/BCQ.py, commit c43a5b1b) restated in NumPy float64.

Forward, backward and Adam are written out by hand, and the losses are the published ones, not ours: the mean squared
error over batch and action plus half the mean KL over batch and latent. Never imports the library or torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Layers = list[tuple[Array, Array]]  # (W (in, out), b (out,)) each


def forward(layers: Layers, x: Array) -> tuple[Array, list[Array]]:
    """ReLU network: output and the input of every layer."""
    inputs = []
    for number, (weight, bias) in enumerate(layers):
        inputs.append(x)
        x = x @ weight + bias
        if number < len(layers) - 1:
            x = np.maximum(x, 0.0)
    return x, inputs


def backward(layers: Layers, inputs: list[Array], grad: Array) -> tuple[Layers, Array]:
    """Gradients of every layer and of the input, from the gradient of the output."""
    grads: Layers = []
    for number in reversed(range(len(layers))):
        weight, _ = layers[number]
        grads.append((inputs[number].T @ grad, grad.sum(0)))
        grad = grad @ weight.T
        if number > 0:
            grad = grad * (inputs[number] > 0.0)
    return grads[::-1], grad


@dataclass
class Adam:
    lr: float = 1e-3
    eps: float = 1e-8
    step: int = 0
    moments: list[Any] = field(default_factory=list)

    def update(self, layers: Layers, grads: Layers) -> None:
        self.step += 1
        if not self.moments:
            self.moments = [[[np.zeros_like(p), np.zeros_like(p)] for p in layer] for layer in layers]
        for layer, layer_grads, layer_moments in zip(layers, grads, self.moments, strict=True):
            for parameter, grad, moment in zip(layer, layer_grads, layer_moments, strict=True):
                moment[0] = 0.9 * moment[0] + 0.1 * grad
                moment[1] = 0.999 * moment[1] + 0.001 * grad**2
                first = moment[0] / (1.0 - 0.9**self.step)
                second = moment[1] / (1.0 - 0.999**self.step)
                parameter -= self.lr * first / (np.sqrt(second) + self.eps)


@dataclass
class ReferenceBCQ:
    """Networks as lists of (W, b); ``critics`` holds two."""

    encoder: Layers
    decoder: Layers
    actor: Layers
    actor_target: Layers
    critics: list[Layers]
    critic_targets: list[Layers]
    phi: float = 0.05
    lmbda: float = 0.75
    discount: float = 0.99
    tau: float = 0.005

    def __post_init__(self) -> None:
        self.vae_adam, self.actor_adam = Adam(), Adam()
        self.critic_adams = [Adam(), Adam()]

    def decode(self, state: Array, z: Array) -> Array:
        return np.tanh(forward(self.decoder, np.concatenate([state, z], 1))[0])

    def perturb(self, actor: Layers, state: Array, action: Array) -> Array:
        moved = action + self.phi * np.tanh(forward(actor, np.concatenate([state, action], 1))[0])
        return np.clip(moved, -1.0, 1.0)

    def vae_step(self, state: Array, action: Array, noise: Array) -> float:
        out, encoder_inputs = forward(self.encoder, np.concatenate([state, action], 1))
        mean, raw = np.split(out, 2, axis=1)
        log_std = np.clip(raw, -4.0, 15.0)
        std = np.exp(log_std)
        z = mean + std * noise
        pre, decoder_inputs = forward(self.decoder, np.concatenate([state, z], 1))
        reconstruction = np.tanh(pre)
        kl = -0.5 * (1.0 + 2.0 * log_std - mean**2 - std**2)
        loss = ((reconstruction - action) ** 2).mean() + 0.5 * kl.mean()

        grad_pre = 2.0 * (reconstruction - action) / action.size * (1.0 - reconstruction**2)
        decoder_grads, grad_input = backward(self.decoder, decoder_inputs, grad_pre)
        grad_z = grad_input[:, state.shape[1] :]
        grad_mean = grad_z + 0.5 * mean / mean.size
        grad_log_std = grad_z * noise * std + 0.5 * (std**2 - 1.0) / std.size
        grad_log_std = grad_log_std * ((raw >= -4.0) & (raw <= 15.0))
        encoder_grads, _ = backward(self.encoder, encoder_inputs, np.concatenate([grad_mean, grad_log_std], 1))
        self.vae_adam.update(self.encoder + self.decoder, encoder_grads + decoder_grads)
        return float(loss)

    def target(self, reward: Array, next_state: Array, not_done: Array, noise: Array) -> Array:
        """noise (N, B, Z), not clipped yet."""
        values = []
        for candidate in noise:
            action = self.decode(next_state, np.clip(candidate, -0.5, 0.5))
            action = self.perturb(self.actor_target, next_state, action)
            pair = np.concatenate([next_state, action], 1)
            q1, q2 = (forward(critic, pair)[0][:, 0] for critic in self.critic_targets)
            values.append(self.lmbda * np.minimum(q1, q2) + (1.0 - self.lmbda) * np.maximum(q1, q2))
        best: Array = np.max(values, axis=0)
        return reward + not_done * self.discount * best

    def critic_step(self, state: Array, action: Array, target: Array) -> float:
        loss = 0.0
        for critic, adam in zip(self.critics, self.critic_adams, strict=True):
            q, inputs = forward(critic, np.concatenate([state, action], 1))
            error = q[:, 0] - target
            loss += float((error**2).mean())
            adam.update(critic, backward(critic, inputs, (2.0 * error / len(error))[:, None])[0])
        return loss

    def actor_step(self, state: Array, noise: Array) -> float:
        sample = self.decode(state, np.clip(noise, -0.5, 0.5))
        pre, actor_inputs = forward(self.actor, np.concatenate([state, sample], 1))
        squashed = np.tanh(pre)
        moved = sample + self.phi * squashed
        action = np.clip(moved, -1.0, 1.0)
        q, critic_inputs = forward(self.critics[0], np.concatenate([state, action], 1))
        _, grad_pair = backward(self.critics[0], critic_inputs, np.full_like(q, -1.0 / len(q)))
        grad_action = grad_pair[:, state.shape[1] :] * ((moved >= -1.0) & (moved <= 1.0))
        grads, _ = backward(self.actor, actor_inputs, grad_action * self.phi * (1.0 - squashed**2))
        self.actor_adam.update(self.actor, grads)
        return -float(q.mean())

    def train(self, batch: dict[str, Array], noise: dict[str, Array]) -> dict[str, float]:
        """One iteration: VAE, critics, actor, targets, in this order."""
        state, action = batch["state"], batch["action"]
        vae_loss = self.vae_step(state, action, noise["encoder"])
        target = self.target(batch["reward"], batch["next_state"], batch["not_done"], noise["target"])
        critic_loss = self.critic_step(state, action, target)
        actor_loss = self.actor_step(state, noise["actor"])
        for online, slow in zip([*self.critics, self.actor], [*self.critic_targets, self.actor_target], strict=True):
            for (weight, bias), (slow_weight, slow_bias) in zip(online, slow, strict=True):
                slow_weight[...] = self.tau * weight + (1.0 - self.tau) * slow_weight
                slow_bias[...] = self.tau * bias + (1.0 - self.tau) * slow_bias
        return {"vae": vae_loss, "critic": critic_loss, "actor": actor_loss}
