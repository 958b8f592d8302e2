"""benchmarks/evidence_simulation.py as a module: it is a script, and tests draw a seeded part of its rows."""

import importlib.util
import sys
from pathlib import Path

PATH = Path(__file__).parents[1] / "benchmarks" / "evidence_simulation.py"
spec = importlib.util.spec_from_file_location("evidence_simulation", PATH)
simulation = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = simulation
spec.loader.exec_module(simulation)


def drawn(key, row, worlds):
    """The mean of each column of one row of the simulation page."""
    study = next(study for study in simulation.STUDIES if study.key == key)
    return dict(zip(study.columns, simulation.share(study.rows[row], worlds, 0, row).mean(axis=0), strict=True))
