"""``export``: the network of a finished run, for use without this project."""

from __future__ import annotations

import argparse
import json

from harness.commands import options
from harness.export.export import FORMATS, Export, export_network
from harness.text import columns, number, size

EXAMPLES = """\
examples:
  python -m harness export digits-crop_s --format onnx --to exported
  python -m harness export digits-crop_s --format safetensors --to exported

formats:
  safetensors  tensors, the operations as Python code, and a loader; needs torch only
  pt2          a program of torch.export in one file
  onnx         a graph in one file
  hub          as safetensors, with a model card

The network computes as in evaluation mode, for any number of samples. It is loaded again and
compared with the original on training samples.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} RUN --format NAME --to DIR [option ...]"
    parser.epilog = EXAMPLES
    parser.add_argument(
        "run",
        metavar="RUN",
        help="a run's folder, its name, the beginning of its name, or its hash",
    )
    parser.add_argument(
        "--format", required=True, metavar="NAME", help=f"{', '.join(FORMATS)}; see below"
    )
    parser.add_argument(
        "--to", type=options.path, required=True, metavar="DIR", help="the new folder to write"
    )
    options.add_data(parser)
    options.add_results(parser)
    options.add_plugin(parser)
    options.add_json(parser, "print what was exported as JSON instead")


def execute(arguments: argparse.Namespace) -> int:
    """Export a network and say what was written."""
    exported = export_network(
        arguments.run,
        arguments.format,
        arguments.to,
        results=arguments.results,
        data=arguments.data,
        plugins=arguments.plugin,
    )
    print(json.dumps(exported, indent=1) if arguments.json else summarise(exported))
    return 0


def summarise(exported: Export) -> str:
    """Return what was exported in a few lines."""
    sizes = " and ".join(map(str, exported["batch_sizes"]))
    files = [(each["name"], size(each["bytes"]), each["sha256"]) for each in exported["files"]]
    lines = [
        f"{exported['run_id']}: {exported['format']} in {exported['folder']}",
        columns([("file", "size", "sha256"), *files]),
        f"loaded again: outputs for batches of {sizes} differ by at most "
        f"{number(exported['difference'])}, {number(exported['relative_difference'])} of the "
        "largest output",
    ]
    return "\n".join([*lines, *([exported["remark"]] if exported["remark"] else [])])
