"""Published boards of made-up runs, and how tests look into them."""

import json
import re

from builders import BASE, accuracy_of, add, patients

from fairbench.jobs.store import Store
from fairbench.publication.publish import publish
from fairbench.publication.published import Choices, Publication, text

RACE = Choices(("race",), min_cell=10)
PATIENTS = {"black": 60, "white": 140}
SHARES = {
    "vanilla": {"black": 0.6, "white": 0.8},
    "better": {"black": 0.75, "white": 0.8},
    "worse": {"black": 0.4, "white": 0.5},
}


def runs(folder, *, seeds=(0,), methods=SHARES, **about):
    """Leave the runs of several methods, each as right as SHARES says, and one that failed."""
    store = Store(folder)
    for number, (name, shares) in enumerate(methods.items()):
        for seed in seeds:
            correct = accuracy_of(shares, PATIENTS, 10 * number + seed)
            how = {"about": BASE, "attributes": ()} if name == "vanilla" else {}
            add(store, name, correct, seed=seed, table=patients(PATIENTS), **how, **about)
    add(store, "broken", None, error="it read /ward/smith_john.png")
    return store


def published(store, name="board", publisher="Lab A", **options):
    """Publish runs by race."""
    return publish([store], name, RACE, command="fairbench publish", publisher=publisher, **options)


def copied(thing):
    """Return a publication or its JSON as JSON of one's own, to be changed."""
    return json.loads(text(thing) if isinstance(thing, Publication) else json.dumps(thing))


def table(data):
    return data["board"]["tables"][0]


def row(data, label):
    return next(one for one in table(data)["rows"] if one["label"] == label)


def job(data, method, seed=0):
    jobs = [one["job"] for one in data["jobs"]]
    return next(one for one in jobs if (one["method"]["name"], one.get("seed", 0)) == (method, seed))


def said(findings, state="differs"):
    return [f"{one.where}: {one.what}" for one in findings if one.state == state]


def says(lines, expected):
    """Assert that one of the lines matches."""
    assert any(re.search(expected, line) for line in lines), lines
