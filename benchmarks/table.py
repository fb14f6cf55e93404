"""Prints a file of `pytest benchmarks --benchmark-json=FILE` as a Markdown table: python benchmarks/table.py FILE."""

import json
import sys
from pathlib import Path

# Of each column its title, its key in extra_info, and how a value is written. One without a value is left out.
COLUMNS = (
    ("PyTorch fp32", "PyTorch fp32 / this", "{:.2f} x"),
    ("PyTorch fp32, one time", "PyTorch fp32, one time / this", "{:.2f} x"),
    ("engine torch", "engine torch / this", "{:.2f} x"),
    ("ONNX Runtime", "ONNX Runtime / this", "{:.2f} x"),
    ("OpenVINO by hand", "OpenVINO by hand / this", "{:.2f} x"),
    ("native fp32", "native fp32 / this", "{:.2f} x"),
    ("native bf16", "native bf16 / this", "{:.2f} x"),
    ("PyTorch bf16", "PyTorch bf16 / this", "{:.2f} x"),
    ("to fp32's picture", "agreement [dB]", "{:.1f} dB"),
    ("of copy bandwidth", "of copy bandwidth", "{:.2f}"),
    ("around the network", "around the network", "{:.1%}"),
    ("a restore", "restore [ms]", "{:.1f} ms"),
    ("bare OpenVINO", "bare OpenVINO [ms]", "{:.1f} ms"),
    ("over it, median of pairs", "over bare OpenVINO", "{:+.2%}"),
    ("load, compile", "load and compile [s]", "{:.1f} s"),
    ("peak memory", "peak memory [GiB]", "{:.1f} GiB"),
    ("export", "export [s]", "{:.0f} s"),
    ("peak memory of export", "export peak memory [GiB]", "{:.1f} GiB"),
)


def main(path: str) -> None:
    """Print one line a benchmark: its median, what stood beside it as ratios, then what else was measured."""
    report = json.loads(Path(path).read_text())
    cpu, benchmarks = report["machine_info"]["cpu"], report["benchmarks"]
    columns = [column for column in COLUMNS if any(column[1] in entry["extra_info"] for entry in benchmarks)]
    print(f"{cpu.get('brand_raw', 'unknown CPU')}, {cpu.get('count', '?')} cores, {report['datetime'][:10]}\n")
    print(f"| benchmark | median | {' | '.join(title for title, _, _ in columns)} |")
    print(f"|---|---:|{'---:|' * len(columns)}")
    for entry in benchmarks:
        facts, median = entry["extra_info"], entry["stats"]["median"]
        cells = [f"{1e3 * median:.1f} ms" if median < 10 else f"{median:.1f} s"]
        cells += [shown.format(facts[key]) if key in facts else "" for _, key, shown in columns]
        print(f"| `{entry['fullname'].split('/')[-1]}` | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
