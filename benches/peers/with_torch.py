"""The circuit as one would write it in PyTorch by hand: one batched matrix product a level.

Activations are [feature, channel, row]. A sum takes exponentials of what is left after the largest input of each feature and
row, multiplies by the weights themselves and takes the logarithm. Expected counts come from autograd: the gradient of the
summed log-likelihoods by a log-weight is the count of its edge, and by a leaf's log-likelihood the flow through that leaf.
"""

import math

import common


def load():
    import torch
    import torch.nn.functional as F

    class Expert:
        name = "torch-expert"

        def __init__(self, circuit, device):
            tensor = lambda array: torch.tensor(array, dtype=torch.float32, device=device)
            self.device = device
            self.size = (circuit.height, circuit.width)
            self.mean, self.std = tensor(circuit.mean)[:, :, None], tensor(circuit.std)[:, :, None]
            self.products = [(kernel, padding) for kernel, padding, _ in circuit.levels]
            # [feature, output, input]
            self.weights = [tensor(weights).transpose(1, 2).contiguous() for _, _, weights in circuit.levels]

        def precisions(self):
            return ["f32", "tf32"] if self.device == "cuda" else ["f32"]

        def batch(self, query):
            return None

        def queries(self, precision):
            torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
            return {"log_likelihood": torch.no_grad()(self.log_likelihood), "em_step": self.em_step}

        def leaves(self, images):
            pixels = images.t()[:, None, :]
            constant = self.std.log() + 0.5 * math.log(2 * math.pi)
            return -0.5 * ((pixels - self.mean) / self.std) ** 2 - constant

        def root(self, level, weights):
            height, width = self.size
            for ((rows, columns), padding), weight in zip(self.products, weights):
                channels, batch = level.shape[1:]
                grid = level.view(height, width, channels, batch)
                edges = [padding[side] for side in ("left", "right", "top", "bottom")]
                if any(edges):
                    grid = F.pad(grid, (0, 0, 0, 0, *edges))
                height, width = grid.shape[0] // rows, grid.shape[1] // columns
                patches = grid.view(height, rows, width, columns, channels, batch)
                product = patches.sum((1, 3)).view(height * width, channels, batch)
                largest = product.amax(1, keepdim=True)
                level = torch.bmm(weight, (product - largest).exp()).log() + largest
            return level.flatten()

        def log_likelihood(self, images):
            return self.root(self.leaves(images), self.weights)

        def em_step(self, images):
            """New weights, means and standard deviations."""
            weights = [weight.clone().requires_grad_() for weight in self.weights]
            leaves = self.leaves(images).requires_grad_()
            self.root(leaves, weights).sum().backward()
            with torch.no_grad():
                counts = [weight * weight.grad for weight in weights]
                weights = [count / count.sum(2, keepdim=True) for count in counts]
                flow, pixels = leaves.grad, images.t()[:, :, None]
                total = flow.sum(2, keepdim=True)
                mean = flow @ pixels / total
                square = flow @ pixels**2 / total
                std = (square - mean**2).clamp(min=1e-6).sqrt()
            return weights, mean, std

    return Expert


if __name__ == "__main__":
    common.main(load)
