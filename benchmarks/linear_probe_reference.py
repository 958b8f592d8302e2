"""Is the training worth it? AUROC of logistic regression on frozen vision features beside that of trained models.

    python benchmarks/linear_probe_reference.py RUNS --data ham10000=FOLDER

RUNS is a folder that `fairbench run` left (for instance of the benchmark ham10000). For each dataset and backbone
in it, each image's frozen features are averaged over its tokens, and scikit-learn's logistic regression learns the
target from the training split; its penalty is the one of four with the best AUROC on validation. Then every
method's AUROC on the same test rows is printed, mean and range of its seeds, and the first seed's difference to the
regression with an interval from drawing clusters (lesions) anew. Two classes only.
"""

import argparse

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fairbench import Store, plugins
from fairbench.data.dataset import rows
from fairbench.data.locations import shared_roots
from fairbench.training.features import Prepared, cache_key, encode

PENALTIES = (0.001, 0.01, 0.1, 1.0)
DRAWS = 2_000


def features(job, loaded, roots, store):
    """The dataset's rows, and each image's mean feature: read from the cache of the runs where it is there."""
    dataset = loaded.make("dataset", job.dataset, roots)
    table = rows(dataset)
    backbone = loaded.make("backbone", job.backbone, roots)
    backbone.build(dataset.classes, dataset.words, torch.float32, torch.device("cpu"))
    folder = store.features_folder(cache_key(job, backbone, torch.float32))
    seen = encode(backbone, Prepared(dataset, table, backbone), folder, 8 << 30, lambda *_: None)
    return dataset, table, np.stack([seen[i]["features"].mean(0).numpy() for i in range(len(table))])


def regression(dataset, table, values):
    """The test rows' scores and the validation AUROC of the best penalty."""
    target = (table["target"] == dataset.classes[1]).to_numpy()
    part = {split: (table["split"] == split).to_numpy() for split in ("train", "val", "test")}

    def fitted(penalty):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=2_000))
        return model.fit(values[part["train"]], target[part["train"]])

    models = [fitted(penalty) for penalty in PENALTIES]
    worth = [roc_auc_score(target[part["val"]], m.predict_proba(values[part["val"]])[:, 1]) for m in models]
    best = int(np.argmax(worth))
    scores = models[best].predict_proba(values[part["test"]])[:, 1]
    return dict(zip(table["id"][part["test"]], scores, strict=True)), PENALTIES[best], worth[best]


def difference(target, cluster, mine, theirs):
    """95 % interval of the difference in AUROC when clusters are drawn anew."""
    generator, names = np.random.default_rng(0), np.unique(cluster)
    members = {name: np.flatnonzero(cluster == name) for name in names}
    found = []
    for _ in range(DRAWS):
        chosen = np.concatenate([members[name] for name in generator.choice(names, len(names))])
        if target[chosen].any() and not target[chosen].all():
            found.append(
                roc_auc_score(target[chosen], mine[chosen]) - roc_auc_score(target[chosen], theirs[chosen])
            )
    return np.quantile(found, [0.025, 0.975])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs")
    parser.add_argument("--data", action="append", default=[], metavar="NAME=PATH")
    options = parser.parse_args()
    store, loaded = Store(options.runs), plugins.load()
    records = [record for record in store.records() if not record.failed]
    places = dict.fromkeys((record.job.dataset.label, record.job.backbone.label) for record in records)
    for place in places:
        here = [r for r in records if (r.job.dataset.label, r.job.backbone.label) == place]
        roots = shared_roots(options.data, loaded.folders([here[0].job.dataset.name]))
        dataset, table, values = features(here[0].job, loaded, roots, store)
        reference, penalty, worth = regression(dataset, table, values)
        print(f"\n{place[0]} on {place[1]}: {len(table):,} images; logistic regression on mean features,")
        print(f"penalty C = {penalty} (validation AUROC {worth:.3f})\n")
        print("| row | seeds | test AUROC | range | minus regression | 95 % interval (first seed) |")
        print("|---|---|---|---|---|---|")
        rowed = {}
        for record in here:
            on = f" on {'+'.join(record.job.attributes)}" if record.job.attributes else ""
            rowed.setdefault(record.job.method.label + on, []).append(store.predictions(record))
        test = next(iter(rowed.values()))[0].table
        target = (test["target"] == 1).to_numpy()
        theirs = np.array([reference[row] for row in test["id"]])
        base = roc_auc_score(target, theirs)
        print(f"| logistic regression | | {base:.3f} | | | |")
        for label, seeds in sorted(rowed.items()):
            aurocs = [roc_auc_score(p.target == 1, p.probability(1)) for p in seeds]
            low, high = difference(target, test["cluster"].to_numpy(), seeds[0].probability(1), theirs)
            print(
                f"| {label} | {len(seeds)} | {np.mean(aurocs):.3f} | {min(aurocs):.3f}-{max(aurocs):.3f}"
                f" | {np.mean(aurocs) - base:+.3f} | {low:+.3f} to {high:+.3f} |"
            )


if __name__ == "__main__":
    main()
