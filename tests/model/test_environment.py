"""Training and fitting need torch, numpy, safetensors and pyarrow, and of facegraft the store, the parts and the vocabulary alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from facegraft_model.config import Config

WORKER = '''
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

DIRECT = {"torch", "numpy", "safetensors", "pyarrow"}
THEIRS = {"torchgen", "functorch", "typing_extensions", "sympy", "mpmath", "networkx", "jinja2", "markupsafe", "fsspec", "filelock", "setuptools", "packaging"}
refused = set()


class OnlyThese(MetaPathFinder):
    """Finds these packages where they are installed; to everything else it is as if it were not."""

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        allowed = top in sys.stdlib_module_names | DIRECT | THEIRS or top.startswith("_sysconfigdata")
        allowed |= top == "facegraft_model" or name in ("facegraft", "facegraft.errors", "facegraft.parts", "facegraft.seeds", "facegraft.settings", "facegraft.vocabulary") or f"{name}.".startswith("facegraft.store.")
        if allowed:
            return PathFinder.find_spec(name, path, target)
        refused.add(name)
        return None


for name in [name for name in sys.modules if name.partition(".")[0] not in sys.stdlib_module_names]:
    del sys.modules[name]
sys.meta_path[:] = [BuiltinImporter, FrozenImporter, OnlyThese()]

import json
from pathlib import Path

import torch

torch.set_num_threads(1)
from facegraft_model.config import Config
from facegraft_model.fitting.fit import fit_samples
from facegraft_model.fitting.fits import load_fits, save_fits
from facegraft_model.models import load_field
from facegraft_model.training.train import train

samples, folder, config = Path(sys.argv[1]), Path(sys.argv[2]), Config.from_json(json.loads(Path(sys.argv[3]).read_text()))
run = folder / "run"
assert train(samples, run, config, device="cpu").name == "step_00000002"
field = load_field(run)
fitted, rows = fit_samples(field, str(samples), ["eve_neutral", "eve_smile"], config.fit)
save_fits(folder / "fits", field, run, rows, fitted.codes, fitted.errors_mm, {}, samples=samples)
assert len(load_fits(folder / "fits")) == 2
assert not {"facegraft.geometry", "facegraft.report", "scipy", "trimesh"} & set(sys.modules)
print(json.dumps(sorted(refused)))
'''


def test_two_steps_of_training_and_two_of_fitting_need_four_packages(
    spheres: Path, tiny: Config, tmp_path: Path
) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(tiny.with_settings(["train.steps=2", "fit.steps=2"]).to_json()))
    command = [sys.executable, "-c", WORKER, str(spheres), str(tmp_path), str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    refused = json.loads(done.stdout.splitlines()[-1])
    assert "tensorboard" in {name.partition(".")[0] for name in refused}
    assert "tensorboard is not installed" in done.stderr
    assert not [name for name in refused if name.startswith("facegraft")]
