"""What the notebooks call: profiles, experiments, the study and the reproduction command."""
