"""Imported by Python at the start of every process whose PYTHONPATH holds this folder: see facegraft/testing/inject.py."""

from facegraft.testing.inject import install_from_environment

install_from_environment()
