"""Who is in which group, and whose rows belong together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fairbench.predictions.predictions import Predictions
from fairbench.statistics.intervals import Ints


@dataclass(frozen=True, eq=False)
class Groups:
    """Who is in which group: codes (n,), -1 = in none; names; and clusters (n,), None if none has two rows."""

    attribute: str
    codes: Ints
    names: tuple[str, ...]
    cluster: Ints | None

    @classmethod
    def of(cls, predictions: Predictions, attribute: str, policy: str) -> Groups:
        """Look up the groups of one attribute (or several joined by +) in some predictions."""
        codes, names = predictions.groups(attribute, policy)
        cluster = predictions.clusters().astype(np.int64)
        alone = np.unique(cluster).size == cluster.size
        return cls(attribute, codes.astype(np.int64), names, None if alone else cluster)
