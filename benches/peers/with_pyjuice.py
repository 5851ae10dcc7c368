"""The circuit in PyJuice, which computes on NVIDIA GPUs only: a vector of nodes for each pixel and each feature.

Its products are in bf16 unless asked otherwise, then in tf32. The inner layers run as a CUDA graph, which PyJuice records when
it is first called. `em_step` is forward, backward and `mini_batch_em` with step size 1 and no pseudocount.
"""

import common


def load():
    import torch
    import pyjuice

    def build(circuit):
        tensor = lambda array: torch.tensor(array, dtype=torch.float32)
        parameters = torch.stack([tensor(circuit.mean), tensor(circuit.std)], 2)
        normal = pyjuice.distributions.Gaussian(mu=0.0, sigma=1.0, min_sigma=1e-3)
        inputs = lambda pixel: pyjuice.inputs(
            pixel, num_node_blocks=1, dist=normal, params=parameters[pixel].reshape(-1)
        )
        with pyjuice.set_block_size(parameters.shape[1]):
            nodes = {(i, j): inputs(i * circuit.width + j) for i in range(circuit.height) for j in range(circuit.width)}
        height, width = circuit.height, circuit.width
        for (rows, columns), padding, weights in circuit.levels:
            height = (height + padding["top"] + padding["bottom"]) // rows
            width = (width + padding["left"] + padding["right"]) // columns
            children = {}
            for (i, j), node in nodes.items():
                feature = ((i + padding["top"]) // rows, (j + padding["left"]) // columns)
                children.setdefault(feature, []).append(node)
            # A feature that covers only padding is the constant 1: nothing is built for it.
            nodes = {}
            for (i, j), below in children.items():
                matrix = tensor(weights[i * width + j]).t().contiguous()
                outputs = matrix.shape[0]
                product = pyjuice.multiply(*below)
                nodes[i, j] = pyjuice.summate(product, num_node_blocks=1, block_size=outputs, params=matrix)
        (root,) = nodes.values()
        return root

    class PyJuice:
        name = "pyjuice"

        def __init__(self, circuit, device):
            self.model = pyjuice.compile(build(circuit), verbose=False)
            self.model.to(device)
            self.record = torch.cuda.is_available()

        def precisions(self):
            return ["tf32", "bf16"]

        def batch(self, query):
            return None

        def queries(self, precision):
            if precision == "tf32":
                # A recorded graph would be in bf16.
                options = {"force_use_fp32": True, "apply_cudagraph": False}
                return {"log_likelihood": torch.no_grad()(lambda images: self.model(images, **options))}
            return {"log_likelihood": torch.no_grad()(self.forward), "em_step": torch.no_grad()(self.em_step)}

        def forward(self, images):
            return self.model(images, record_cudagraph=self.record)

        def em_step(self, images):
            self.forward(images)
            self.model.backward(images, flows_memory=0.0, record_cudagraph=self.record)
            self.model.mini_batch_em(step_size=1.0, pseudocount=0.0)

    return PyJuice


if __name__ == "__main__":
    common.main(load)
