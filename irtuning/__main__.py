"""`python -m irtuning`, for launchers: `torchrun --nproc-per-node 2 -m irtuning train ...`."""

from irtuning.cli import main

if __name__ == "__main__":
    main()
