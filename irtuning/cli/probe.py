"""The command that chooses layers before training, for any trainer of peft models."""

from irtuning.cli import options as opt
from irtuning.training.config import RunConfig


def probe(
    output: opt.ProbeFolder, corpus: opt.Corpus = "synthetic", data: opt.Data = None, model: opt.Model = "mini",
    adapter: opt.Adapter = "lora", share: opt.Share = 0.5, batches: opt.Batches = 5, score: opt.Score = "rms",
    chunk: opt.Chunk = None, seed: opt.Seed = 171, fold: opt.Fold = 0, settings: opt.Setting = None,
    before: opt.Before = "before", after: opt.After = "after", label: opt.Label = "label", group: opt.Group = None,
    as_json: opt.Json = False) -> None:  # fmt: skip
    """Choose layers before training, for any trainer of peft models.

    Nothing is trained. The folder gets adapter_config.json, which LoraConfig.from_pretrained and any trainer of peft
    models read, also with FSDP or DeepSpeed, and probe.json with the scores. `irtuning train` takes it as --adapter.

    \b
    irtuning probe --corpus mine.csv --model smollm2-135m --share 0.5 --chunk 8 --output layers
    irtuning train --corpus mine.csv --model smollm2-135m --adapter layers --method full --output runs/probed
    """
    method = f"probe:score={score}:batches={batches}"
    config = RunConfig.of(opt.run_settings(locals()))  # before the imports, which take seconds
    from irtuning.training.prepare import prepare
    from irtuning.training.probe import probe_layers
    peft, table = probe_layers(prepare(config, data_dir=data), output=output, chunk=chunk)
    result = {"output": str(output), "layers": peft.layers_to_transform, "scores": table.score.to_dict()}
    lines = [table.round(6).to_string(), f"layers: {', '.join(map(str, peft.layers_to_transform))}",
             f"saved:  {output} (adapter_config.json for peft, probe.json with the scores)"]  # fmt: skip
    opt.show(result, as_json, "\n".join(lines))
