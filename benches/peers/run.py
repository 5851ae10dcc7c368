"""Measures convpc and its peers on the same circuits in one session, and prints the table of what it found.

    python3 benches/peers/run.py [--only small] [--threads 2] [--device cpu|cuda]

The first time it installs the peers into a virtual environment under target/peers. Every circuit is made by convpc, which
writes its parameters, its images and their log-likelihoods; a peer is measured once its log-likelihoods agree. Lines of JSON
come first, one for each measurement, then the table. Standard library only. Exit status 0 where every peer that could be
measured was, 77 where none could be, 1 otherwise.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CIRCUITS = ("small", "mnist32", "mnist64", "mnist128")
PROGRAMS = {"spflow": "with_spflow.py", "torch-expert": "with_torch.py", "pyjuice": "with_pyjuice.py"}
GPU_ONLY = ("pyjuice",)
TITLES = {"spflow": "SPFlow", "pyjuice": "PyJuice"}
# Exit status of a program that lacks what it needs, and of this one where all do.
LEFT_OUT = 77


def fail(why):
    sys.exit(f"error: {why}")


def say(what):
    print(what, file=sys.stderr, flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU, for all programs")
    parser.add_argument("--runs", type=int, default=5, help="repetitions to take the median of")
    parser.add_argument("--only", choices=CIRCUITS, action="append", help="this circuit; may be given again")
    parser.add_argument("--without", choices=PROGRAMS, action="append", default=[], help="leave out this peer")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this time")
    parser.add_argument("--folder", type=pathlib.Path, default=target() / "peers", help="where all files go")
    parser.add_argument("--python", help="a Python that has the peers; nothing is installed")
    parser.add_argument("--convpc", help="the example `peers`, already built, in the place of `cargo run`")
    return parser.parse_args()


def target():
    return ROOT / os.environ.get("CARGO_TARGET_DIR", "target")


def install(folder, device):
    """The Python of a virtual environment with the peers: made where it is not, or holds other versions."""
    name = "requirements-cuda.txt" if device == "cuda" else "requirements.txt"
    wanted = "".join((HERE / file).read_text() for file in sorted({"requirements.txt", name}))
    environment, stamp = folder / f"venv-{device}", folder / f"venv-{device}.txt"
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return str(python)
    say(f"installing the peers into {environment}: PyTorch is large, this takes minutes")
    stamp.unlink(missing_ok=True)
    try:
        import venv

        venv.create(environment, with_pip=True, clear=True)
    except (ImportError, OSError, subprocess.CalledProcessError) as error:
        fail(f"a virtual environment could not be made ({error}): install Python's module venv (Debian: python3-venv)")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    if subprocess.run([*pip, "--requirement", str(HERE / name)]).returncode:
        fail(
            "pip could not install the peers, its message is above: it needs its package index and room for several GB; "
            "give --python PYTHON where a Python has them"
        )
    stamp.write_text(wanted)
    return str(python)


def lines_of(command, environment, limit):
    """Runs a program, shows its lines of JSON as they come, and returns them with its exit status; None: out of time."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    late = threading.Event()
    timer = threading.Timer(min(limit, threading.TIMEOUT_MAX), lambda: (late.set(), process.kill()))
    timer.start()
    found = []
    for line in process.stdout:
        if line.startswith("{"):
            found.append(json.loads(line))
            print(line, end="", flush=True)
    status = process.wait()
    timer.cancel()
    return found, None if late.is_set() else status


def convpc(options, names, circuits, limit):
    """Writes the circuits and measures convpc: on a GPU in each precision."""
    program = [options.convpc]
    if not options.convpc:
        features = ["--features", "cuda"] if options.device == "cuda" else []
        program = ["cargo", "run", "--quiet", "--release", "--manifest-path", str(ROOT / "Cargo.toml")]
        program += ["--package", "benches", *features, "--example", "peers", "--"]
    program += ["--backend", options.device, "--threads", str(options.threads), "--runs", str(options.runs)]
    program += [part for name in names for part in ("--only", name)]
    found = []
    for precision in ("f32", "tf32", "bf16") if options.device == "cuda" else ("f32",):
        write = ["--write", str(circuits)] if precision == "f32" else []
        try:
            lines, status = lines_of([*program, "--precision", precision, *write], None, limit())
        except OSError as error:
            fail(f"{program[0]} could not be started: {error}")
        if status:
            fail("convpc could not be measured, its message is above")
        if status is None:
            fail("convpc was not done in time: give more --seconds")
        found += lines
    return found


def peers(options, names, circuits, python, limit):
    """Measures the peers, each in a process of its own; whether all went well comes second."""
    threads = str(options.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONDONTWRITEBYTECODE": "1"}
    # PyTorch's threads wait for each other in busy loops otherwise, in which any other work on the machine costs them tenfold.
    environment.setdefault("OMP_WAIT_POLICY", "passive")
    found, well = [], True
    for peer, program in PROGRAMS.items():
        if peer in options.without or (peer in GPU_ONLY and options.device == "cpu"):
            continue
        command = [python, str(HERE / program), "--circuits", str(circuits), "--device", options.device]
        command += ["--threads", threads, "--runs", str(options.runs), *names]
        try:
            lines, status = lines_of(command, environment, max(limit(), 0.0))
        except OSError as error:
            fail(f"{python} could not be started: {error}")
        found += lines
        if status == LEFT_OUT:
            say(f"{peer} is left out, for the reason above")
        elif status is None:
            say(f"{peer} was stopped: no time was left")
        elif status:
            say(f"{peer} failed ({status}), for the reason above")
            well = False
    return found, well


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(lines):
    """Images a second: a row for each circuit, query and precision that convpc and a peer have, or either has alone."""
    cells, rows = {}, []
    for line in lines:
        row = (line["circuit"], line["op"], line["precision"])
        cells[row, line["peer"]] = line
        if row not in rows:
            rows.append(row)
    columns = [peer for peer in PROGRAMS if any(line["peer"] == peer for line in lines)]
    rows = [row for row in rows if any((row, peer) in cells for peer in columns)]
    titles = [TITLES.get(peer, peer) for peer in columns]
    head = ["circuit", "query", "precision", "convpc", *titles, *(f"convpc / {title}" for title in titles)]
    text = [head, ["---", "---", "---", *["--:"] * (len(head) - 3)]]
    for row in rows:
        own = cells.get((row, "convpc"))
        speeds, ratios = [], []
        for peer in columns:
            line = cells.get((row, peer))
            speed = number(line["images_per_second"]) if line else "–"
            other_batch = line and own and line["batch"] != own["batch"]
            speeds.append(f"{speed} (batch {line['batch']})" if other_batch else speed)
            both = line and own
            ratios.append(f"{number(own['images_per_second'] / line['images_per_second'])}×" if both else "–")
        text.append([*row, number(own["images_per_second"]) if own else "–", *speeds, *ratios])
    return "\n".join("| " + " | ".join(row) + " |" for row in text)


def main():
    options = arguments()
    names = [name for name in CIRCUITS if not options.only or name in options.only]
    end = time.monotonic() + options.seconds
    limit = lambda: end - time.monotonic()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    circuits = folder / "circuits"
    lines = convpc(options, names, circuits, limit)
    python = options.python or install(folder, options.device)
    others, well = peers(options, names, circuits, python, limit)
    if not others:
        say("no peer was measured")
        sys.exit(LEFT_OUT if well else 1)
    batch = next(line["batch"] for line in lines)
    print(f"\nImages a second on {options.device}, {options.threads} threads, batch {batch} where no other is given:\n")
    print(table(lines + others))
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
