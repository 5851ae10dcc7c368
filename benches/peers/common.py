"""What the peers' programs share: the circuits that convpc wrote, the check against it, the clock, the lines of JSON.

A program defines a class for its library and hands it to `main`:

    class Peer:
        name = "..."
        def __init__(self, circuit, device)     the same circuit, with the same parameters
        precisions(self)                        what it can multiply: f32, tf32, bf16
        batch(self, query)                      rows that it takes at a time for a query, at most; None: all
        queries(self, precision)                {query: function of the images}; log_likelihood comes first and returns rows
"""

import argparse
import json
import pathlib
import statistics
import struct
import sys
import time

# Exit status of a program that lacks what it needs.
LEFT_OUT = 77
# Repetitions end early once they have taken this many seconds, as those of convpc do.
PATIENCE = 4.0
# |difference| <= RELATIVE · |log-likelihood| + ABSOLUTE, in nats. What is multiplied in fewer digits is as far off.
# A tensor core that is given f32 for tf32 cuts off what is too much: each of a circuit's sums comes out too small by up to 2^-10 of
# itself, and they add up (PyJuice: 0.05 nats for the 85 sums of `small`).
RELATIVE = {"f32": 1e-5, "tf32": 1e-3, "bf16": 1e-3}
ABSOLUTE = 1e-4


def left_out(why):
    print(f"left out: {why}", file=sys.stderr)
    sys.exit(LEFT_OUT)


try:
    import numpy as np
    import torch
except ImportError as error:
    left_out(f"the import failed: {error}")


class Circuit:
    """A circuit with Normal leaves and Sum layers, as `cargo run --example peers -- --write FOLDER` wrote it."""

    def __init__(self, folder, name):
        self.name = name
        metadata, tensors = read_safetensors(folder / f"{name}.safetensors")
        self.layers = json.loads(metadata["structure"])
        leaf, *above = self.layers
        self.height, self.width = leaf["height"], leaf["width"]
        # [pixel, channel]
        self.mean, self.std = (np.ascontiguousarray(tensors["layer/0"][:, :, 0, i]) for i in (0, 1))
        # The levels from below: the kernel and the padding of a product, and the weights [feature, input, output] above it.
        self.levels = []
        for index in range(0, len(above), 2):
            product, weights = above[index], tensors[f"layer/{index + 2}"][:, :, :, 0]
            self.levels.append((product["kernel"], product["padding"], weights))
        self.images = np.load(folder / f"{name}.images.npy")
        self.log_likelihoods = np.load(folder / f"{name}.log_likelihoods.npy")

    def flop(self, query):
        """Multiplications and additions of the sums for one image, counted as convpc counts them."""
        passes = {"log_likelihood": 1, "em_step": 3}.get(query)
        return passes and passes * sum(2 * weights.size for _, _, weights in self.levels)


def read_safetensors(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__")
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        tensors[name] = np.frombuffer(data[begin:end], dtype={"F64": "<f8"}[entry["dtype"]]).reshape(entry["shape"])
    return metadata, tensors


def difference(circuit, found, precision):
    """The largest difference from convpc's log-likelihoods; an error where it is too large."""
    expected = circuit.log_likelihoods[: len(found)]
    gap = np.abs(found - expected)
    allowed = RELATIVE[precision] * np.abs(expected) + ABSOLUTE
    if not (gap <= allowed).all():
        row = int(np.argmax(np.where(np.isnan(gap), np.inf, gap - allowed)))
        sys.exit(
            f"error: {circuit.name}: the log-likelihood of row {row} is {found[row]:.6f}, convpc's is {expected[row]:.6f}; "
            f"in {precision} they may differ by {allowed[row]:.6f}: these are not the same circuits, nothing is timed"
        )
    return float(gap.max())


def median_seconds(work, finish, runs):
    """The median over some runs, at least one, after one to warm up."""
    begin = time.perf_counter()
    work()
    finish()
    times = []
    while not times or (len(times) < runs and time.perf_counter() - begin < PATIENCE):
        start = time.perf_counter()
        work()
        finish()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(peer, circuit, arguments):
    finish = torch.cuda.synchronize if arguments.device == "cuda" else lambda: None
    images = torch.from_numpy(circuit.images).to(arguments.device)
    for precision in peer.precisions():
        for query, work in peer.queries(precision).items():
            rows, gap = images[: peer.batch(query)], None
            if query == "log_likelihood":
                gap = difference(circuit, work(rows).double().flatten().cpu().numpy(), precision)
            seconds = median_seconds(lambda: work(rows), finish, arguments.runs)
            flop = circuit.flop(query)
            line = {
                "circuit": circuit.name,
                "peer": peer.name,
                "op": query,
                "device": arguments.device,
                "precision": precision,
                "threads": arguments.threads,
                "batch": len(rows),
                "seconds": round(seconds, 6),
                "images_per_second": round(len(rows) / seconds, 1),
                "gflops": flop and round(flop * len(rows) / seconds / 1e9, 2),
                "difference": gap,
            }
            print(json.dumps(line), flush=True)


def main(load):
    """Measures the class that `load` returns, with its library imported, on each circuit."""
    parser = argparse.ArgumentParser(description="Started by run.py.")
    parser.add_argument("--circuits", type=pathlib.Path, required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("names", nargs="+")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        left_out(f"PyTorch {torch.__version__} sees no GPU")
    try:
        peer = load()
    except ImportError as error:
        left_out(f"the import failed: {error}")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    for name in arguments.names:
        circuit = Circuit(arguments.circuits, name)
        measure(peer(circuit, arguments.device), circuit, arguments)
