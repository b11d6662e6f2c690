"""The command that chooses layers before training, for any trainer of peft models."""

import json

from irtuning.cli import options as opt
from irtuning.training.config import RunConfig


def probe(
    output: opt.ProbeFolder, corpus: opt.Corpus = "synthetic", data: opt.Data = None, model: opt.Model = "mini",
    adapter: opt.Adapter = "lora", share: opt.Share = 0.5, batches: opt.Batches = 5, score: opt.Score = "rms",
    chunk: opt.Chunk = None, seed: opt.Seed = 171, fold: opt.Fold = 0, settings: opt.Setting = None,
    before: opt.Before = "before", after: opt.After = "after", label: opt.Label = "label", group: opt.Group = None,
    as_json: opt.Json = False) -> None:  # fmt: skip
    """Measure every layer on a few batches, choose the best ones, and write a peft configuration for them alone.

    Nothing is trained. The folder gets adapter_config.json, which LoraConfig.from_pretrained and any trainer of peft
    models read, also with FSDP or DeepSpeed, and probe.json with the score of every layer. `irtuning train` takes the
    folder as --adapter, with the method full. --chunk measures a large model with less memory.

    \b
    irtuning probe --corpus mine.csv --model smollm2-135m --share 0.5 --chunk 8 --output layers
    irtuning train --corpus mine.csv --model smollm2-135m --adapter layers --method full --output runs/probed
    """
    method = f"probe:score={score}:batches={batches}"
    config = RunConfig.of(opt.run_settings(locals()))  # before the imports, which take seconds
    from irtuning.training.prepare import prepare
    from irtuning.training.probe import probe_layers
    probed = probe_layers(prepare(config, data_dir=data), output=output, chunk=chunk)
    table = probed.table.assign(score=probed.table.score.map("{:.3g}".format))
    lines = [table.to_string(), f"{len(probed.layers)} of {len(table)} layers: {', '.join(map(str, probed.layers))}",
             f"saved: {output} (adapter_config.json for peft, probe.json with the scores)"]  # fmt: skip
    scores = json.loads(probed.table.reset_index().to_json(orient="records"))
    opt.show({"output": str(output), "layers": probed.layers, "scores": scores}, as_json, "\n".join(lines))
