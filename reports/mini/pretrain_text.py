"""Token ids of plain text: reading documents, making a tokenizer from them, and drawing rows for training."""

import lzma
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pretrain_pairs import SPECIAL, WordSource, pairs_of

from irtuning.errors import InputError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

SOURCE_DOCUMENTS = 600  # number of documents whose words edits use; each worker gets a copy
BEGIN = SPECIAL.index("<s>")


def read_documents(paths: Sequence[Path]) -> list[str]:
    """Read the documents in text files: one paragraph per line, a blank line between documents.

    Raises:
        InputError: a file cannot be read, is not UTF-8 or is damaged, or there is no text.
    """
    documents = []
    for path in map(Path, paths):
        try:
            with lzma.open(path, "rb") if path.suffix == ".xz" else path.open("rb") as stream:
                text = stream.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8 text at byte {error.start:,}; convert it first") from None
        except (OSError, lzma.LZMAError, EOFError) as error:
            raise InputError(f"{path} cannot be read: {error}; give another file") from None
        documents += [part.strip() for part in text.replace("\r\n", "\n").split("\n\n") if part.strip()]
    if not documents:
        raise InputError(f"no text in {', '.join(map(str, paths)) or 'an empty list of files'}; give files with text")
    return documents


def make_tokenizer(documents: Sequence[str], size: int, context: int) -> "PreTrainedTokenizerBase":
    """Train a byte-level BPE tokenizer on up to 30 MB. It encodes any Unicode text, and pairs like the classifier."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(SPECIAL), initial_alphabet=alphabet)
    sample, room = [], 30_000_000
    for document in documents:
        sample.append(document)
        if (room := room - len(document)) < 0:
            break
    tokenizer.train_from_iterator(sample, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A <sep> $B </s>", special_tokens=[(t, i) for i, t in enumerate(SPECIAL)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        sep_token="<sep>",
        padding_side="left",
        model_max_length=context,
    )


def encode_documents(documents: Sequence[str], tokenizer: "PreTrainedTokenizerBase") -> np.ndarray:
    """Return all documents as one row of token ids, with a begin mark before each."""
    return _encode([[f"<s>{document}" for document in part] for part in _chunks(documents)], tokenizer)


def encode_pairs(
    documents: Sequence[str], tokenizer: "PreTrainedTokenizerBase", tokens: int, *, seed: int = 0, tail: bool = True
) -> np.ndarray:
    """Return at least `tokens` token ids of edited pairs, from as many passes over the documents as needed.

    Raises:
        InputError: no document has a sentence that can become a pair.
    """
    source = WordSource.of(random.Random(seed).sample(documents, min(len(documents), SOURCE_DOCUMENTS)))
    rows, found, passes = [], 0, 0
    while found < tokens:
        parts = [(part, f"{seed} {passes} {n}") for n, part in enumerate(_chunks(documents))]
        rows.append(_encode(parts, tokenizer, source, tail))
        passes += 1
        found += len(rows[-1])
        if not len(rows[-1]):
            raise InputError("no sentence has the 3 to 60 words that a pair needs; give more text, or pairs=0")
    return np.concatenate(rows)


def _chunks(documents: Sequence[str]) -> Iterator[Sequence[str]]:
    size = -(-len(documents) // (4 * (os.cpu_count() or 1)))  # four parts per core
    return (documents[i : i + size] for i in range(0, len(documents), size))


def _encode(parts, tokenizer, source: WordSource | None = None, tail: bool = True) -> np.ndarray:
    """Return the token ids of all parts, or with a `source` of pairs made from them. All cores work in parallel."""
    from joblib import Parallel, delayed

    inner = tokenizer.backend_tokenizer.to_str()
    return np.concatenate(Parallel(n_jobs=-1)(delayed(_encode_part)(part, inner, source, tail) for part in parts))


def _encode_part(part, tokenizer: str, source: WordSource | None, tail: bool) -> np.ndarray:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the cores are busy with the other parts
    from tokenizers import Tokenizer

    if source:
        documents, seed = part
        rng = random.Random(seed)
        part = [text for document in documents for text in pairs_of(document, rng, source, tail=tail)]
    found = Tokenizer.from_str(tokenizer).encode_batch_fast(part, add_special_tokens=False)
    return np.concatenate([np.array(row.ids, np.uint16) for row in found] or [np.zeros(0, np.uint16)])


class Rows:
    """Rows of `length` tokens with a begin mark, drawn at random from one long row. One pass draws every part once."""

    def __init__(self, ids: np.ndarray, length: int, device: str, whole: bool, seed: int):
        import torch

        self.ids, self.length = torch.from_numpy(ids.astype(np.int32)).to(device), length
        self.rng = np.random.default_rng(seed)
        # a row of pairs starts where a pair does, a row of documents starts anywhere
        self.starts = np.flatnonzero(ids == BEGIN) if whole else np.arange(len(ids))
        self.queue = np.zeros(0, np.int64)

    def draw(self, count: int) -> "torch.Tensor":
        """Return the token ids of new rows, shape (count, length)."""
        import torch

        while len(self.queue) < count:
            last = len(self.ids) - self.length
            starts = np.arange(self.rng.integers(min(self.length, last + 1)), last + 1, self.length)
            self.queue = np.concatenate([self.queue, self.rng.permutation(starts)])
        wanted, self.queue = self.queue[:count], self.queue[count:]
        wanted = self.starts[np.searchsorted(self.starts, wanted, side="right") - 1]
        starts = torch.from_numpy(wanted).to(self.ids.device, non_blocking=True)
        rows = self.ids[starts[:, None] + torch.arange(self.length, device=self.ids.device)].long()
        rows[:, 0] = BEGIN
        return rows
