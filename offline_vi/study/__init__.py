"""Experiments and studies: what the verbs of the command do, for Python too."""
