"""Prints a file of `pytest benchmarks --benchmark-json=FILE` as a Markdown table: python benchmarks/table.py FILE."""

import json
import sys
from pathlib import Path


def main(path: str) -> None:
    """Print one line a benchmark: its median, then what stood beside it, as ratios."""
    report = json.loads(Path(path).read_text())
    cpu = report["machine_info"]["cpu"]
    print(f"{cpu.get('brand_raw', 'unknown CPU')}, {cpu.get('count', '?')} cores, {report['datetime'][:10]}\n")
    print("| benchmark | median | PyTorch fp32 | ONNX Runtime | of copy bandwidth |\n|---|---:|---:|---:|---:|")
    for entry in report["benchmarks"]:
        facts = entry["extra_info"]
        beside = [facts.get(f"{name} / this") for name in ("PyTorch fp32", "ONNX Runtime")]
        cells = [f"{1e3 * entry['stats']['median']:.1f} ms", *(f"{ratio:.1f} x" if ratio else "" for ratio in beside)]
        cells.append(f"{facts['of copy bandwidth']:.2f}" if "of copy bandwidth" in facts else "")
        print(f"| `{entry['fullname'].split('/')[-1]}` | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
