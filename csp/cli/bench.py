"""Measures a model on this machine: size, loading, memory, real-time factor, latency; against its own dense forms.

csp bench runs/digits/model.safetensors --audio some.wav
csp bench runs/lm
"""

import argparse
import json
from pathlib import Path
from typing import Any

from csp.cli.tables import table


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="a model file, or a run directory")
    parser.add_argument("--audio", type=Path, metavar="FILE", help="a recording to hear; 20 s of a tone voice else")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="of which medians are shown; 5 by default")


def run(options: argparse.Namespace) -> int:
    from csp.runtime import bench
    from csp.runtime.model import file_of, kind_of

    if options.repeats < 1:
        raise ValueError(f"--repeats {options.repeats} must be positive")
    path = file_of(options.model)
    if kind_of(path) == "lm":
        if options.audio is not None:
            raise ValueError(f"--audio {options.audio}: {path} is a language model, which hears nothing")
        return _read(path, options)
    found = bench.measure(path, options.audio, options.repeats)
    if options.json:
        print(json.dumps(found))
        return 0
    head = ["form", "in memory", "load", "peak memory", "real-time factor", "100 ms chunk p50", "p99", "first word"]
    rows = [
        [
            row["form"],
            f"{row['matrices_bytes'] / 1e3:,.0f} kB",
            f"{row['load_ms']:.1f} ms",
            f"{row['peak_mb']:.0f} MB",
            f"{row['rtf']:.5f}",
            f"{row['chunk_p50_ms']:.2f} ms",
            f"{row['chunk_p99_ms']:.2f} ms",
            "-" if row["first_word_s"] is None else f"{row['first_word_s']:.2f} s",
        ]
        for row in found["forms"]
    ]
    print(f"{path}: {found['bytes'] / 1e3:,.1f} kB, {found['kernels']} kernels, {found['seconds']:.0f} s of sound\n")
    print(table(head, rows, right=range(1, len(head))))
    print(f"\none frame through all matrices takes {_walks(found)}")
    return 0


def _read(path: Path, options: argparse.Namespace) -> int:
    from csp.runtime import lmbench

    found = lmbench.measure(path, options.repeats)
    if options.json:
        print(json.dumps(found))
        return 0
    head = ["form", "in memory", "load", "a label", "labels/s", "8 hypotheses", "labels/s"]
    rows = [
        [
            row["form"],
            f"{row['matrices_bytes'] / 1e3:,.0f} kB",
            f"{row['load_ms']:.1f} ms",
            f"{row['label_us']:,.0f} us",
            f"{row['labels_per_second']:,.0f}",
            f"{row['beam_us']:,.0f} us",
            f"{row['beam_labels_per_second']:,.0f}",
        ]
        for row in found["forms"]
    ]
    print(f"{path}: {found['bytes'] / 1e3:,.1f} kB, {found['kernels']} kernels, a past of {found['context']} labels\n")
    print(table(head, rows, right=range(1, len(head))))
    print(f"\none label through all matrices takes {_walks(found)}")
    return 0


def _walks(found: dict[str, Any]) -> str:
    stored, *others = found["forms"]
    walks = [f"{row['form']} {row['matrices_us'] / stored['matrices_us']:.1f}x" for row in others]
    if found["onnxruntime_int8_us"] is not None:
        walks.append(f"onnxruntime's dynamic int8 {found['onnxruntime_int8_us'] / stored['matrices_us']:.1f}x")
    return f"{stored['matrices_us']:.0f} us; {', '.join(walks)}"
