"""Networks of other libraries and of a user's own files, and their weights.

A setting names a network as ``torchvision:NAME``, ``timm:NAME``, ``transformers:NAME`` or
``FILE.py:CALLABLE``, and a file of weights by its path. Files are looked up in the current folder
and in the data folder. Code and weights are part of a run's identity. Networks of libraries are
built with random weights; nothing is downloaded.

Settings use this module, so torch is imported when a network is built.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import inspect
import pickle
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from harness.data.description import located
from harness.errors import RequestError, nearest, place
from harness.plugin_code import PluginCode, without_prefix
from harness.settings import Recipe, Reference

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Head = Literal["loaded", "new"]
"""Whether the output layer of a network with pretrained weights is loaded too, or is new."""

_FILE = re.compile(r"(.+\.py):(\w+)")


class ForeignModel(Reference):
    """Marks a setting that may name a network of a library or of a file.

    Args:
        libraries: the libraries whose networks fit the task.
    """

    def __init__(self, *libraries: str) -> None:
        self._libraries = libraries
        self.forms = ", ".join((*(f"{library}:NAME" for library in libraries), "FILE.py:CALLABLE"))

    def accepts(self, value: str) -> bool:
        """Return whether a text has one of these forms."""
        return is_foreign(value) and (
            _FILE.fullmatch(value) is not None or value.partition(":")[0] in self._libraries
        )

    def fingerprint(self, name: str, value: str, data_folder: Path) -> str | None:
        """Return the hash of a file's code, and of the code beside it that it imports.

        Raises:
            RequestError: the file is missing or not Python, or the library is not installed.
        """
        if not is_foreign(value):
            return None
        if _FILE.fullmatch(value):
            return _code(name, value, data_folder)[0].fingerprint()
        _require_installed(name, value)
        return None


class WeightsFile(Reference):
    """Marks a setting that may name a file of weights; it is empty if there is none."""

    forms = "a file"

    def accepts(self, value: str) -> bool:
        """Return whether the text is not empty."""
        return bool(value)

    def fingerprint(self, name: str, value: str, data_folder: Path) -> str | None:
        """Return the hash of the file.

        Raises:
            RequestError: the file cannot be read.
        """
        if not value:
            return None
        with _file(name, value, data_folder).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]


IMAGE_MODEL = ForeignModel("torchvision", "timm")
TEXT_MODEL = ForeignModel("transformers")


@dataclass(frozen=True, kw_only=True)
class PretrainedSettings(Recipe):
    """The setting of tasks whose networks may start from the weights of a file."""

    pretrained: Annotated[
        str,
        "file of the weights that training starts from, in the format safetensors or as a "
        "state_dict that torch saved; empty for random weights",
        WeightsFile(),
    ] = ""


def is_foreign(value: str) -> bool:
    """Return whether the value of a setting names no network of this project."""
    return ":" in value


def image_channels(value: str, own: int) -> int:
    """Return how many channels the images of a network have.

    Networks of libraries take colour images. Grey images are repeated in three channels.

    Args:
        value: the network.
        own: the number of channels of the stored images.
    """
    return 3 if is_foreign(value) and not _FILE.fullmatch(value) else own


def build_image_model(
    value: str, *, classes: int, channels: int, side: int, data_folder: Path
) -> nn.Module:
    """Return a network for the classification of images, with random weights.

    Args:
        value: names the network.
        classes: number of outputs.
        channels: of the images, as `image_channels` returns them.
        side: pixels of a side of the images.
        data_folder: where files are looked up besides the current folder.

    Raises:
        RequestError: there is no such network, or it does not fit the images and classes.
    """
    import torch

    library, _, name = value.partition(":")
    if _FILE.fullmatch(value):
        network = _from_file(value, data_folder)
    elif library == "torchvision":
        network = _from_torchvision(value, name, classes, side)
    else:
        network = _from_timm(value, name, classes, side)
    images = torch.zeros(2, channels, side, side)
    require_outputs(value, network, images, (2, classes))
    return network


def build_language_model(
    value: str,
    *,
    vocabulary: int,
    length: int,
    blocks: int,
    heads: int,
    head_width: int,
    key_heads: int,
    data_folder: Path,
) -> nn.Module:
    """Return a network that predicts the next word, with random weights.

    ``transformers:NAME`` is the network of that type for causal language modelling, in the given
    sizes. Sizes that its configuration does not have are ignored.

    Args:
        value: names the network.
        vocabulary: number of words.
        length: number of words that it reads at a time.
        blocks: number of layers.
        heads: number of attention heads in each block.
        head_width: features of a head.
        key_heads: number of heads of keys and values.
        data_folder: where files are looked up besides the current folder.

    Raises:
        RequestError: there is no such network, or it does not fit the words.
    """
    if _FILE.fullmatch(value):
        return _from_file(value, data_folder)
    _require_installed("model", value)
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.models.auto import modeling_auto

    name, known = value.partition(":")[2], modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if name not in known:
        raise RequestError(
            f"model={value}: transformers has no causal language model {name!r}"
            f"{nearest(name, known)}"
        )
    width = heads * head_width

    def build() -> nn.Module:
        config = AutoConfig.for_model(
            name,
            vocab_size=vocabulary,
            hidden_size=width,
            num_hidden_layers=blocks,
            num_attention_heads=heads,
            num_key_value_heads=key_heads,
            intermediate_size=4 * width,
            max_position_embeddings=length,
            head_dim=head_width,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=None,
            use_cache=False,
        )
        network: nn.Module = AutoModelForCausalLM.from_config(config)
        return network

    return _built(value, build)


def load_weights(
    network: nn.Module, value: str, data_folder: Path, *, classes: int, head: Head
) -> None:
    """Load the weights of a file into a network, in place.

    Args:
        network: as it is built for the task.
        value: names a file in the format safetensors, or a state_dict that torch saved. Code in
            it is never run.
        data_folder: where the file is looked up besides the current folder.
        classes: number of outputs.
        head: ``new`` leaves the output layer as it is, for other classes than those of the file.

    Raises:
        RequestError: the file is damaged, or its weights are those of another network.
    """
    what = f"pretrained={value}"
    own = network.state_dict()
    stored = _tensors(what, _file("pretrained", value, data_folder))
    if head == "new":
        output = _output_layer(what, network, classes)
        kept = {name: tensor for name, tensor in own.items() if name.rpartition(".")[0] == output}
        stored = {name: tensor for name, tensor in stored.items() if name not in kept} | kept
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    own_names, stored_names = set(own) - counters, set(stored) - counters
    other = f"{what}: the weights are those of another network"
    if missing := sorted(own_names - stored_names):
        raise RequestError(
            f"{other}: {len(missing)} of {len(own_names)} tensors are missing, "
            f"such as {missing[0]!r}"
        )
    if unknown := sorted(stored_names - own_names):
        raise RequestError(f"{other}: this network has no {unknown[0]!r}")
    for name in own:
        if name in stored and own[name].shape != stored[name].shape:
            raise RequestError(
                f"{other}: {name!r} is {tuple(stored[name].shape)}, not {tuple(own[name].shape)}"
                "; head=new takes all but the output layer"
            )
    network.load_state_dict(stored, strict=False)


def _require_installed(name: str, value: str) -> None:
    library = value.partition(":")[0]
    if importlib.util.find_spec(library) is None:
        raise RequestError(
            f"{name}={value}: {library} is not installed; "
            f"pip install 'pruning-benchmark[{library}]' installs it"
        )


def _file(name: str, value: str, data_folder: Path) -> Path:
    found = located(value, data_folder)
    if found is None or not found.is_file():
        raise RequestError(f"{name}={value}: there is no such file, here or in {data_folder}")
    return found


def _code(name: str, value: str, data_folder: Path) -> tuple[PluginCode, str]:
    """Return the code of ``FILE.py:CALLABLE``, and the name of the callable.

    Raises:
        RequestError: the file is missing or not Python.
    """
    match = _FILE.fullmatch(value)
    assert match is not None
    path = _file(name, match[1], data_folder).resolve()
    code = PluginCode(path)
    try:
        code.fingerprint()
    except SyntaxError as error:
        file = Path(error.filename or path).name
        raise RequestError(
            f"{name}={value}: {file} is not Python: {error.msg}, line {error.lineno}"
        ) from None
    except (OSError, ValueError) as error:
        raise RequestError(f"{name}={value}: {path.name} cannot be read: {error}") from None
    return code, match[2]


def _from_file(value: str, data_folder: Path) -> nn.Module:
    from torch import nn

    code, name = _code("model", value, data_folder)
    module = _tried(value, code, "does not import", lambda: code.load(code.fingerprint()))
    build = getattr(module, name, None)
    if build is None:
        defined = [each for each, v in vars(module).items() if callable(v) and each[0] != "_"]
        raise RequestError(
            f"model={value}: {code.source.name} has no {name!r}{nearest(name, defined)}"
        )
    if not callable(build):
        raise RequestError(f"model={value}: {name!r} is no function, but {build!r}")
    if needed := list(_needed_arguments(build)):
        raise RequestError(
            f"model={value}: {place(build)} needs arguments: {', '.join(needed)}; "
            "a function without arguments returns the network"
        )
    network = _tried(value, code, "fails", build)
    if not isinstance(network, nn.Module):
        raise RequestError(
            f"model={value}: {place(build)} returns {type(network).__name__}, not a torch.nn.Module"
        )
    return network


def _needed_arguments(function: Callable[..., Any]) -> Iterator[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # it is written in C
        return
    for each in parameters:
        optional = each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        if each.default is each.empty and not optional:
            yield each.name


def _tried(value: str, code: PluginCode, failing: str, action: Callable[[], Any]) -> Any:
    """Carry out an action that runs a user's code; if it fails, say why in one line."""
    try:
        return action()
    except RequestError:
        raise
    except (Exception, SystemExit) as error:
        own = {str(file) for file in code.files().values()}
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in own]
        where = code.source.name
        if frames:
            where = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}"
        raise RequestError(
            f"model={value}: {where}: {failing}: {without_prefix(_in_one_line(error))}"
        ) from error


def _from_torchvision(value: str, name: str, classes: int, side: int) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise RequestError(
            f"model={value}: torchvision has no network {name!r}{nearest(name, known)}"
        )
    arguments: dict[str, Any] = {"num_classes": classes}
    if name.startswith("vit_"):
        arguments["image_size"] = side
    elif name.startswith("maxvit"):
        arguments["input_size"] = (side, side)
    elif name in ("googlenet", "inception_v3"):
        # Their other outputs are for training from the paper's recipe only.
        arguments |= {"aux_logits": False, "init_weights": True}
    return _built(value, lambda: models.get_model(name, weights=None, **arguments))


def _from_timm(value: str, name: str, classes: int, side: int) -> nn.Module:
    _require_installed("model", value)
    import timm

    if not timm.is_model(name):
        raise RequestError(
            f"model={value}: timm has no network {name!r}{nearest(name, timm.list_models())}"
        )

    def build(**arguments: Any) -> nn.Module:
        network: nn.Module = timm.create_model(
            name, pretrained=False, num_classes=classes, **arguments
        )
        return network

    def build_for_side() -> nn.Module:
        try:
            return build(img_size=side)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            return build()  # a network for images of any size

    return _built(value, build_for_side)


def _built(value: str, build: Callable[[], nn.Module]) -> nn.Module:
    try:
        return build()
    except Exception as error:  # a library may refuse a size in any way
        raise RequestError(f"model={value}: cannot be built: {_in_one_line(error)}") from error


def require_outputs(
    value: str,
    network: nn.Module,
    inputs: Tensor,
    shape: tuple[int, ...],
    call: Callable[[Any, Tensor], object] | None = None,
) -> None:
    """Refuse a network that does not map some inputs to outputs of a shape, in either mode.

    The network and the random state stay as they are.

    Args:
        value: names the network.
        network: of the user, or of a library.
        inputs: on the CPU.
        shape: of the outputs.
        call: returns the outputs of a network for inputs; None to call the network.

    Raises:
        RequestError: it does not.
    """
    import torch

    for training in (False, True):
        probe = copy.deepcopy(network).train(training)
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                outputs = probe(inputs) if call is None else call(probe, inputs)
        except Exception as error:  # any code may run
            raise RequestError(
                f"model={value}: it does not take inputs of shape {tuple(inputs.shape)}: "
                f"{_in_one_line(error)}"
            ) from error
        if not isinstance(outputs, torch.Tensor):
            raise RequestError(
                f"model={value}: it returns {type(outputs).__name__}, not one tensor"
            )
        if tuple(outputs.shape) != shape:
            raise RequestError(
                f"model={value}: its outputs are of shape {tuple(outputs.shape)}, not {shape}: "
                f"the data have {shape[-1]} {'classes' if len(shape) == 2 else 'words'}"
            )


def _tensors(what: str, path: Path) -> Mapping[str, torch.Tensor]:
    """Return the tensors of a file by name.

    Raises:
        RequestError: the file is damaged, or has something else in it.
    """
    import safetensors
    import safetensors.torch
    import torch

    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        *(OSError, EOFError, RuntimeError, ValueError, KeyError),
        *(pickle.UnpicklingError, safetensors.SafetensorError),
    ) as error:
        raise RequestError(
            f"{what}: neither safetensors nor a state_dict without code: {_in_one_line(error)}"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(tensor, torch.Tensor) for tensor in content.values()
    ):
        raise RequestError(f"{what}: the file has no state_dict, whose values are tensors")
    return content


def _output_layer(what: str, network: nn.Module, classes: int) -> str:
    """Return the name of the last layer with as many outputs as there are classes."""
    found: list[str] = [
        name.removesuffix(".weight")
        for name, weight in network.named_parameters()
        if name.endswith(".weight") and weight.ndim >= 2 and weight.shape[0] == classes
    ]
    if not found:
        raise RequestError(f"{what}: head=new: no layer of the network has {classes} outputs")
    return found[-1]


def _in_one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
