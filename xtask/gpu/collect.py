"""Gathers what run.sh left: DEVICE-DATE.json, and DEVICE-DATE.md for kernels/TUNING.md.

    python3 collect.py WORK PACK.json OUT

Standard library only. Exit status 0 where there is a GPU and every part that ran is right, 1 otherwise.
"""

import csv
import datetime
import json
import pathlib
import re
import sys


def read(path):
    return path.read_text(errors="replace") if path.exists() else ""


def json_lines(text):
    """The lines that are JSON objects; benchmarks print others too."""
    found = []
    for line in text.splitlines():
        if line.startswith("{"):
            try:
                found.append(json.loads(line))
            except ValueError:
                pass
    return found


def without_repeats(lines, known):
    """The lines but those of convpc itself that are known: the part that measures the peers measures convpc beside them."""
    key = lambda line: (line["circuit"], line["op"], line["device"], line.get("precision"))
    seen = {key(line) for line in known}
    return [line for line in lines if line["peer"] != "convpc" or key(line) not in seen]


def device(text):
    fields = ["name", "driver", "memory_MiB", "compute_capability", "max_sm_MHz", "max_memory_MHz", "power_limit_W"]
    values = [value.strip() for value in text.strip().splitlines()[0].split(",")] if text.strip() else []
    return dict(zip(fields, values))


def tests(text):
    results = re.findall(r"^test result: .* (\d+) passed; (\d+) failed; (\d+) ignored", text, re.M)
    passed, failed, ignored = (sum(int(result[i]) for result in results) for i in range(3))
    names = re.findall(r"^test (.+) \.\.\. FAILED$", text, re.M)
    return {"passed": passed, "failed": failed, "ignored": ignored, "failing": names}


def sanitizer(text):
    errors = [int(n) for n in re.findall(r"ERROR SUMMARY: (\d+) error", text)]
    hazards = [int(n) for n in re.findall(r"RACECHECK SUMMARY: (\d+) hazard", text)]
    return {"programs": len(errors) + len(hazards), "errors": sum(errors), "hazards": sum(hazards)}


def kernels(text):
    """ncu's table, one row for each metric of each launch: the longest launch of each kernel, and how many there were."""
    lines = text.splitlines()
    head = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if head is None:
        return []
    launches = {}
    for row in csv.DictReader(lines[head:]):
        if not row.get("Metric Name") or not (row.get("ID") or "").isdigit():
            continue
        launch = launches.setdefault(row["ID"], {"kernel": row["Kernel Name"].split("(")[0], "grid": row.get("Grid Size"),
                                                 "block": row.get("Block Size")})
        try:
            value = float(row["Metric Value"].replace(",", ""))
        except ValueError:
            continue
        launch[f"{row['Metric Name']} [{row['Metric Unit']}]"] = value
    worst = {}
    for launch in launches.values():
        best = worst.setdefault(launch["kernel"], {"launches": 0, "seconds": 0.0})
        seconds, total = duration(launch), best["seconds"]
        best["launches"] += 1
        best["seconds"] = total + seconds
        if "longest" not in best or seconds > duration(best["longest"]):
            best["longest"] = launch
    table = [{"kernel": name, **found} for name, found in worst.items()]
    return sorted(table, key=lambda row: -row["seconds"])


def duration(launch):
    scale = {"ns": 1e-9, "nsecond": 1e-9, "us": 1e-6, "usecond": 1e-6, "ms": 1e-3, "msecond": 1e-3, "s": 1.0, "second": 1.0}
    for unit, factor in scale.items():
        if f"Duration [{unit}]" in launch:
            return launch[f"Duration [{unit}]"] * factor
    return 0.0


def percent(launch, name):
    return launch.get(f"{name} [%]")


def criterion(folder):
    found = []
    for path in sorted(folder.glob("**/new/estimates.json")):
        seconds = json.loads(path.read_text())["median"]["point_estimate"] / 1e9
        benchmark = json.loads(path.with_name("benchmark.json").read_text())
        images = (benchmark.get("throughput") or {}).get("Elements")
        found.append({"benchmark": benchmark["full_id"], "median_seconds": seconds,
                      "images_per_second": images and images / seconds})
    return found


def number(value, digits=3):
    return "–" if value is None else f"{value:,.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}"


def table(head, rows):
    align = ["---"] + ["--:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in [head, align, *rows]) + "\n"


def markdown(result):
    gpu, text = result["device"], []
    text.append(f"## {gpu.get('name', 'No GPU')}, {result['date']}\n")
    text.append(f"Driver {gpu.get('driver', '–')}; commit {result['pack'].get('commit', '–')}.\n")
    text.append(table(["part", "end", "seconds"], [(p["name"], p["status"], p["seconds"]) for p in result["parts"]]))
    t = result["tests"]
    found = f"{t['passed']} passed, {t['failed']} failed, {t['ignored']} ignored" if any(t.values()) else "not run"
    text.append(f"Conformance tests: {found}.\n")
    for tool in ("memcheck", "racecheck"):
        s = result[tool]
        found = f"{s['programs']} programs, {s['errors']} errors, {s['hazards']} hazards" if s["programs"] else "not run"
        text.append(f"{tool}: {found}.\n")
    if result["ceilings"]:
        text.append(table(["ceiling", "value", "unit"],
                          [(c["ceiling"], number(c["value"], 4), c["unit"]) for c in result["ceilings"]]))
    if result["benchmarks"] or result["peers"]:
        text.append(benchmarks(result))
    if result["compare"]:
        text.append(result["compare"])
    if result["kernels"]:
        head = ["kernel", "launches", "µs in all", "longest, µs", "compute %", "DRAM %", "occupancy %", "registers"]
        rows = []
        for kernel in result["kernels"]:
            longest = kernel["longest"]
            rows.append((f"`{kernel['kernel']}`", kernel["launches"], number(kernel["seconds"] * 1e6),
                         number(duration(longest) * 1e6), number(percent(longest, "Compute (SM) Throughput")),
                         number(percent(longest, "DRAM Throughput")), number(percent(longest, "Achieved Occupancy")),
                         number(longest.get("Registers Per Thread [register/thread]"))))
        text.append(table(head, rows))
    return "\n".join(text)


def benchmarks(result):
    """One row for each circuit, query, program and device: the share of the tensor cores' rate, and how it stands to the
    fastest other program on that device."""
    rates = {c["ceiling"]: c["value"] * 1e3 for c in result["ceilings"] if c["unit"] == "TFLOP/s"}
    tf32, bf16 = rates.get("mma.sync tf32"), rates.get("mma.sync bf16")
    # A product of f32 is three of tf32.
    at_most = {"f32": tf32 and tf32 / 3, "tf32": tf32, "bf16": bf16}
    rows, everything = [], result["benchmarks"] + result["peers"]
    for line in everything:
        key = (line["circuit"], line["op"], line["device"])
        others = [o["images_per_second"] for o in everything
                  if (o["circuit"], o["op"], o["device"]) == key and o["peer"] != line["peer"] and o.get("images_per_second")]
        precision, fraction = line.get("precision", "–"), None
        if line.get("gflops") and line["device"].startswith("cuda") and at_most.get(precision):
            fraction = 100 * line["gflops"] / at_most[precision]
        rows.append((f"{line['circuit']} {line['op']}", line["peer"], line["device"], precision, line["batch"],
                     number(1e3 * line["seconds"]), number(line["images_per_second"]), number(line.get("gflops")),
                     number(fraction), number(line["images_per_second"] / max(others) if others else None)))
    head = ["circuit, query", "program", "device", "precision", "batch", "ms", "images/s", "GFLOP/s", "% of matrix rate",
            "× the fastest other there"]
    return table(head, sorted(rows, key=lambda row: row[0]))


def main():
    work, pack, out = (pathlib.Path(argument) for argument in sys.argv[1:4])
    output = lambda name: read(work / f"{name}.out")
    parts = [dict(zip(("name", "status", "seconds"), line.split("\t"))) for line in read(work / "status.tsv").splitlines()]
    result = {
        "date": datetime.date.today().isoformat(),
        "device": device(output("device")),
        "pack": json.loads(read(pack) or "{}"),
        "parts": parts,
        "tests": tests(output("tests")),
        "ceilings": json_lines(output("ceilings")),
        "benchmarks": json_lines(output("bench")),
        "peers": without_repeats(json_lines(output("peers")), json_lines(output("bench"))),
        "compare": output("compare"),
        "memcheck": sanitizer(output("memcheck")),
        "racecheck": sanitizer(output("racecheck")),
        "kernels": kernels(output("ncu")),
        "criterion": criterion(work / "criterion"),
    }
    name = re.sub(r"[^a-z0-9]+", "-", result["device"].get("name", "no-gpu").lower()).strip("-")
    stem = out / f"{name}-{result['date']}"
    stem.with_suffix(".json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    stem.with_suffix(".md").write_text(markdown(result))
    print(f"=== results: {stem}.json, {stem}.md")
    for part in parts:
        print(f"{part['name']:<10} {part['status']:<12} {part['seconds']} s")
    t = result["tests"]
    print(f"tests: {t['passed']} passed, {t['failed']} failed")
    sys.exit(0 if result["device"] and all(part["status"] in ("ok", "left-out") for part in parts) else 1)


if __name__ == "__main__":
    main()
