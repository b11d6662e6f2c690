"""Revision corpora: what they are, where they come from, how they are read, split and described."""
