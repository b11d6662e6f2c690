"""Entry point of `python -m irtuning`, which launchers use: `torchrun --nproc-per-node 2 -m irtuning train ...`."""

from irtuning.cli import main

if __name__ == "__main__":
    main()
