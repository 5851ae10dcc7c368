"""SPFlow's ConvPc, as its documentation shows it."""

import common

# SPFlow's sum makes tensors of [row, feature, input, output]: as many rows at a time as fill this many bytes.
MEMORY = 1 << 30


def load():
    import torch
    from spflow.learn.expectation_maximization import expectation_maximization
    from spflow.meta import Scope
    from spflow.modules.leaves import Normal
    from spflow.modules.sums import Sum
    from spflow.zoo.conv import ConvPc

    class SPFlow:
        name = "spflow"

        def __init__(self, circuit, device):
            tensor = lambda array: torch.tensor(array, dtype=torch.float32)
            mean, std = tensor(circuit.mean)[:, :, None], tensor(circuit.std)[:, :, None]
            leaf = Normal(scope=Scope(list(range(circuit.height * circuit.width))), loc=mean, scale=std)
            channels, (kernel, _) = circuit.levels[0][2].shape[2], circuit.levels[1][0]
            self.model = ConvPc(
                leaf=leaf,
                input_height=circuit.height,
                input_width=circuit.width,
                channels=channels,
                depth=len(circuit.levels) - 1,
                kernel_size=kernel,
            )
            # From the root to the leaves.
            sums = [module for module in self.model.modules() if isinstance(module, Sum)]
            for module, (_, _, weights) in zip(sums, reversed(circuit.levels), strict=True):
                module.weights = tensor(weights)[:, :, :, None]
            self.model.to(device)
            self.rows = max(1, MEMORY // max(4 * weights.size for _, _, weights in circuit.levels))

        def precisions(self):
            return ["f32"]

        def batch(self, query):
            return self.rows

        def queries(self, precision):
            return {
                "log_likelihood": torch.no_grad()(self.model.log_likelihood),
                "sample": torch.no_grad()(lambda images: self.model.sample(num_samples=len(images))),
                "em_step": lambda images: expectation_maximization(self.model, images, max_steps=1),
            }

    return SPFlow


if __name__ == "__main__":
    common.main(load)
