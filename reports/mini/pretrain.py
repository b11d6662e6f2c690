"""Pre-train `irtuning-mini`, or a small model of your own, from scratch on plain text.

    python reports/mini/pretrain.py train.txt.xz --held-out valid.txt.xz --output FOLDER
"""

import hashlib
import json
import logging
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from pretrain_model import Recipe

from irtuning.errors import InputError
from irtuning.training.record import new_folder, write_text

logger = logging.getLogger("irtuning.mini")
FRESH_PASSES = 4  # passes over the text, each with new edits; longer training repeats these pairs
DEFAULTS = " ".join(f"{name}={value}" for name, value in asdict(Recipe()).items())


def main(
    texts: Annotated[
        list[Path], typer.Argument(help="Plain UTF-8 or .xz: one paragraph per line, a blank line between documents.")
    ],
    output: Annotated[Path, typer.Option(help="New folder for weights, tokenizer and training.json.")],
    held_out: Annotated[
        list[Path] | None, typer.Option(help="Text to score (repeatable). Without it, every 100th document is scored.")
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help=f"name=value, repeatable. Default: {DEFAULTS}")] = None,
) -> None:
    """Pre-train a small causal language model from scratch on plain text and on edited pairs made from it.

    \b
    python reports/mini/pretrain.py train.txt.xz --held-out valid.txt.xz --output runs/mini
    python reports/mini/pretrain.py sample.txt --output /tmp/tiny --set layers=2 --set width=64 --set steps=50
    """
    given = [text.partition("=") for text in settings or []]
    recipe = Recipe.of({name: value for name, _, value in given})
    from pretrain_text import read_documents

    documents = read_documents(texts)
    if held_out:
        scored = read_documents(held_out)
    else:
        scored, documents = documents[99::100], [d for i, d in enumerate(documents, 1) if i % 100]
    with new_folder(output) as folder:
        record = pretrain(documents, scored, recipe, folder)
        files = [*texts, *(held_out or [])]
        record["texts"] = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        write_text(folder / "training.json", json.dumps(record, indent=1) + "\n")
    logger.info("wrote %s; held-out bits per byte: %s", output, record["bits_per_byte"])


def pretrain(documents: list[str], scored: list[str], recipe: Recipe, folder: Path) -> dict:
    """Make a tokenizer and a model from `documents`, write both to `folder`, and return the record of the training.

    Raises:
        InputError: the text is shorter than one context, the disk is full, or the loss is not finite.
    """
    import torch
    from pretrain_model import bits_per_byte, fit, make_model
    from pretrain_text import encode_documents, encode_pairs, make_tokenizer

    from irtuning.training.record import provenance

    tokenizer = make_tokenizer(documents, recipe.vocabulary, recipe.context)
    plain = encode_documents(documents, tokenizer)
    if len(plain) <= recipe.context:
        raise InputError(f"the text has {len(plain)} tokens, but one context has {recipe.context}; give more text")
    torch.manual_seed(recipe.seed)
    model = make_model(recipe, len(tokenizer)).to("cuda" if torch.cuda.is_available() else "cpu")
    parameters = sum(p.numel() for p in model.parameters())
    if (free := shutil.disk_usage(folder).free) < (needed := 2 * parameters + 2**24):
        raise InputError(f"{folder.parent} has {free:,} bytes free, but about {needed:,} are needed; free some space")
    pairs = None
    if wanted := int(recipe.pairs * recipe.steps * recipe.batch_tokens):
        wanted = max(recipe.context + 1, min(wanted, FRESH_PASSES * len(plain)))
        pairs = encode_pairs(documents, tokenizer, wanted, seed=recipe.seed, tail=recipe.tail)
    curve = fit(model, recipe, plain, pairs, (lambda: bits_per_byte(model, tokenizer, scored)) if scored else None)
    model.bfloat16()  # as it is saved; it is scored in float32 below
    try:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "model.safetensors").chmod(0o644)
    except OSError as error:
        raise InputError(f"the weights cannot be written: {error}; free some space and train again") from None
    return {
        "recipe": asdict(recipe),
        "parameters": parameters,
        "documents": len(documents),
        "tokens": {"plain": len(plain), "pairs": 0 if pairs is None else len(pairs)},
        "held_out_documents": len(scored),
        "bits_per_byte": bits_per_byte(model.float(), tokenizer, scored) if scored else None,
        "curve": curve,
        "meta": provenance(),
    }


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger("irtuning").setLevel(logging.INFO)
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    try:
        app()
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
