"""A traced network as Python code that needs torch only, and its weights as plain tensors."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file
from torch.fx import Graph, Node

from harness.errors import RunFailed
from harness.export import loader
from harness.export.program import Program

WEIGHTS, CODE, LOADER = "model.safetensors", "network.py", "load.py"
"""The tensors by name, the operations, and the function that puts the two together."""

TEMPLATE = '''\
"""The network of {run}, as torch.export traced it in evaluation mode.

`load` in load.py returns it with its weights, which are in model.safetensors.
"""

import torch
from torch import device, inf, nan  # some operations use them

PARAMETERS = {{
{parameters}}}
"""Shapes and types of what was trained."""

BUFFERS = {{
{buffers}}}
"""Shapes and types of all other tensors."""


class Network(torch.nn.Module):
    """Tensors with the names of the original network, and its operations."""

    def __init__(self):
        super().__init__()
        for name, (shape, dtype) in {{**PARAMETERS, **BUFFERS}}.items():
            *parents, own = name.split(".")
            module = self
            for parent in parents:
                if parent not in module._modules:
                    module.add_module(parent, torch.nn.Module())
                module = module.get_submodule(parent)
            tensor = torch.empty(shape, dtype=dtype)
            if name in PARAMETERS:
                module.register_parameter(own, torch.nn.Parameter(tensor))
            else:
                module.register_buffer(own, tensor)

{forward}
'''


def write_plain_torch(program: Program, folder: Path, run: str) -> None:
    """Write weights, code and loader of a network into a folder.

    Raises:
        RunFailed: the network is no plain sequence of operations.
    """
    # Copies, since the format does not store parts of one memory.
    tensors = {name: tensor.contiguous().clone() for name, tensor in program.tensors.items()}
    save_file(tensors, folder / WEIGHTS)
    (folder / CODE).write_text(source(program, run), encoding="utf-8")
    (folder / LOADER).write_bytes(Path(loader.__file__).read_bytes())


def source(program: Program, run: str) -> str:
    """Return the code of a class ``Network``, whose state has the names of the traced network's.

    Args:
        program: the traced network.
        run: the name of the run.

    Raises:
        RunFailed: the network is no plain sequence of operations.
    """
    forward = _plain_graph(program).python_code("self").src.strip()
    parameters, buffers = "", ""
    for name, tensor in program.tensors.items():
        line = f"    {name!r}: ({tuple(tensor.shape)}, {tensor.dtype}),\n"
        if name in program.exported.graph_signature.parameters:
            parameters += line
        else:
            buffers += line
    return TEMPLATE.format(
        run=run,
        parameters=parameters,
        buffers=buffers,
        forward="\n".join(f"    {line}".rstrip() for line in forward.splitlines()),
    )


def _plain_graph(program: Program) -> Graph:
    """Return the operations, which read tensors by name and are put where the inputs are."""
    graph: Graph = copy.deepcopy(program.exported.graph)
    if any(node.op == "get_attr" for node in graph.nodes):
        raise RunFailed(
            "the network contains further programs, such as branches that depend on its data, and "
            "is no plain sequence of operations; export it as pt2"
        )
    inputs = []
    first_names = program.first_names
    specs = program.exported.graph_signature.input_specs
    for node, spec in zip(graph.find_nodes(op="placeholder"), specs, strict=True):
        if spec.target is None:
            inputs.append(node)
        elif node.users:
            node.op, node.target, node.args = "get_attr", first_names[spec.target], ()
        else:
            graph.erase_node(node)
    _follow_device(graph, inputs)
    output = graph.output_node()
    (outputs,) = output.args
    assert isinstance(outputs, tuple | list)
    tensors = tuple(each for each in outputs if isinstance(each, Node))
    output.args = tensors if len(tensors) == 1 else (tensors,)
    return graph


def _follow_device(graph: Graph, inputs: Sequence[Node]) -> None:
    """Let constants appear on the device of the inputs instead of that of the tracing."""
    creating = [node for node in graph.nodes if "device" in node.kwargs]
    if creating:
        with graph.inserting_after(inputs[-1]):
            device = graph.call_function(getattr, (inputs[0], "device"))
        for node in creating:
            node.update_kwarg("device", device)
