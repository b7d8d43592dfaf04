"""How fast clusters are learnt and subjects are assigned, and what the members cost in memory.

    python benchmarks/bench_clusters.py [--n 20000]
    python benchmarks/bench_clusters.py --quality VECTORS.npy [--moved 0.3] [--grown 2] [--min-members 5]

Without ``--quality``: vectors around 300 centres of a 384-d space, drawn with a fixed seed. ``river`` is river's own k-means from
its own random centres, on fewer vectors. With it: encoder vectors of a file, (N, d_text) float32, shuffled; how good the clusters
are and how many requests they make.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np
from machine import commit, machine
from river.cluster import KMeans
from scipy.cluster.vq import kmeans2

from contracts.ports import Matrix
from contracts.records import Cluster
from contracts.settings import Collective
from extractor.assignment import Assignment, MemberKind, centre_of, nearest_rows
from extractor.centres import RATE
from extractor.clustering import Clustering
from extractor.projection import project

N_CLUSTERS: Final = (50, 100, 200, 400)
BATCH: Final = 500
N_RIVER: Final = 500
D_TEXT: Final = 384
N_TOPICS: Final = 300
SPACE: Final = "bench"


def simulated(n: int) -> Matrix:
    """(n, 384) unit vectors around 300 centres."""
    rng = np.random.default_rng(0)
    topics = rng.standard_normal((N_TOPICS, D_TEXT))
    vectors = topics[rng.integers(N_TOPICS, size=n)] + rng.standard_normal((n, D_TEXT))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def learn(clustering: Clustering, names: list[str], points: Matrix) -> Counter[str]:
    """Learn all of (N, 32) in batches, asking about what is due after each; the requests by reason."""
    asked: Counter[str] = Counter()
    for start in range(0, len(names), BATCH):
        some = names[start : start + BATCH]
        clustering.learn_many(some, points[start : start + BATCH], [start] * len(some), ["attributes"] * len(some))
        for due in clustering.due():
            asked[due.reason] += 1
            clustering.asked(due, start)
    return asked


def speed(n_clusters: int, names: list[str], points: Matrix) -> dict[str, float]:
    """Per second, on one core."""
    clustering = Clustering("item", n_clusters, Collective(), SPACE)
    start = time.perf_counter()
    learn(clustering, names, points)
    learnt_s = time.perf_counter() - start
    assignment = Assignment()
    for cluster in clustering.changed():
        assignment.apply(cluster)
    start = time.perf_counter()
    for at in range(0, len(points), BATCH):
        assignment.nearest("item", points[at : at + BATCH], SPACE)
    assigned_s = time.perf_counter() - start
    start = time.perf_counter()
    for point in points[:BATCH]:
        assignment.nearest("item", point[None], SPACE)
    one_s = time.perf_counter() - start
    rivers = KMeans(n_clusters=n_clusters, halflife=RATE, seed=0)
    start = time.perf_counter()
    for point in points[:N_RIVER]:
        rivers.learn_one(dict(enumerate(point.tolist())))
    river_s = time.perf_counter() - start
    return {
        "learns_per_s": round(len(names) / learnt_s),
        "river_learns_per_s": round(N_RIVER / river_s),
        "assignments_per_s": round(len(names) / assigned_s),
        "assignments_one_by_one_per_s": round(BATCH / one_s),
    }


def bytes_per_member(names: list[str], points: Matrix) -> int:
    """Of a clustering with 100 clusters, by tracemalloc; the names themselves belong to it too, in a role."""
    tracemalloc.start()
    clustering = Clustering("item", 100, Collective(), SPACE)
    learn(clustering, [str(bytes(name, "ascii"), "ascii") for name in names], points)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return round(used / clustering.n_members)


def within(vectors: Matrix, labels: Any) -> float:
    """Mean cosine of a vector (N, d_text) to the mean of its cluster."""
    total = 0.0
    for label in np.unique(labels):
        mean = vectors[labels == label].mean(axis=0)
        total += float((vectors[labels == label] @ mean).sum() / np.linalg.norm(mean))
    return total / len(vectors)


def kept_neighbours(vectors: Matrix, points: Matrix, k: int) -> float:
    """Share of the ten nearest by all of d_text that are among the k nearest in 32 dimensions, of 500 vectors."""
    chosen = np.random.default_rng(0).choice(len(vectors), 500, replace=False)

    def nearest(all_of_them: Matrix, n: int) -> Any:
        scores = all_of_them[chosen] @ all_of_them.T
        scores[np.arange(len(chosen)), chosen] = -9
        return np.argsort(-scores, axis=1)[:, :n]

    pairs = zip(nearest(vectors, 10), nearest(points, k), strict=True)
    return float(np.mean([np.isin(true, found).mean() for true, found in pairs]))


def inertia(points: Matrix, centres: Matrix) -> float:
    """Mean squared distance to the nearest centre, as a share of the variance."""
    rows = nearest_rows(points, centres)
    return float(((points - centres[rows]) ** 2).sum(axis=1).mean() / points.var(axis=0).sum())


def quality(n_clusters: int, vectors: Matrix, kind: MemberKind, settings: Collective) -> dict[str, Any]:
    """How good, how stable, how many requests per 1,000 encodings.

    ``steady``: everybody is encoded once more, a little (0.05) off where it was.
    """
    points, names = project(vectors), [f"{kind}:{n}" for n in range(len(vectors))]
    clustering, half = Clustering(kind, n_clusters, settings, SPACE), len(vectors) // 2
    asked = [learn(clustering, names[:half], points[:half])]
    first = assigned(clustering.clusters(), kind, points)
    asked.append(learn(clustering, names[half:], points[half:]))
    second = assigned(clustering.clusters(), kind, points)
    centres = np.stack([centre_of(one.centre) for one in clustering.clusters()])
    labels = nearest_rows(points, centres)
    sizes = np.bincount(labels, minlength=n_clusters)
    off = np.random.default_rng(2).standard_normal(vectors.shape).astype(np.float32) * 0.05 / math.sqrt(vectors.shape[1])
    steady = learn(clustering, names, project(vectors + off))
    at_random = from_random_centres(points, n_clusters)
    random_sizes = np.bincount(nearest_rows(points, at_random), minlength=n_clusters)
    lloyd, _ = kmeans2(points, n_clusters, minit="++", seed=0, iter=20)
    _, best = kmeans2(vectors, n_clusters, minit="++", seed=0, iter=20)
    cosines = [within(vectors, by) for by in (labels, best, np.random.default_rng(0).integers(n_clusters, size=len(vectors)))]
    return {
        "inertia": round(inertia(points, centres), 3),
        "inertia_lloyd": round(inertia(points, lloyd), 3),
        "inertia_random_centres": round(inertia(points, at_random), 3),
        "clusters_with_members": int((sizes > 0).sum()),
        "clusters_with_members_random_centres": int((random_sizes > 0).sum()),
        "largest": round(float(sizes.max() / len(vectors)), 3),
        "largest_random_centres": round(float(random_sizes.max() / len(vectors)), 3),
        "cosine_to_mean": round(cosines[0], 3),
        "cosine_to_mean_kmeans_d_text": round(cosines[1], 3),
        "cosine_to_mean_by_chance": round(cosines[2], 3),
        "gain_kept": round((cosines[0] - cosines[2]) / (cosines[1] - cosines[2]), 2),
        "members_in_clusters_asked_about": round(float(sizes[sizes >= settings.min_members].sum() / len(vectors)), 3),
        "same_cluster_after_second_half": round(
            float(np.mean([a == b for a, b in zip(first[:half], second[:half], strict=True)])), 2
        ),
        "requests_per_1000": per_1000(asked[0] + asked[1], len(names)),
        "requests_per_1000_second_half": per_1000(asked[1], len(names) - half),
        "requests_per_1000_steady": per_1000(steady, len(names)),
    }


def from_random_centres(points: Matrix, n_clusters: int) -> Matrix:
    """The centres (C, 32) that river's k-means comes to from those it draws itself, of about the vectors' length."""
    rivers = KMeans(n_clusters=n_clusters, halflife=RATE, sigma=1 / math.sqrt(points.shape[1]), seed=0)
    for point in points:
        rivers.learn_one(dict(enumerate(point.tolist())))
    return np.array([[centre[n] for n in range(points.shape[1])] for centre in rivers.centers.values()], dtype=np.float32)


def assigned(clusters: list[Cluster], kind: MemberKind, points: Matrix) -> list[str]:
    """The nearest cluster of each point (N, 32)."""
    assignment = Assignment()
    for cluster in clusters:
        assignment.apply(cluster)
    return assignment.nearest(kind, points, SPACE)


def per_1000(asked: Counter[str], n: int) -> dict[str, float]:
    """By reason, and all together."""
    return {reason: round(1000 * times / n, 1) for reason, times in [*sorted(asked.items()), ("all", asked.total())]}


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=20_000, help="simulated vectors (default 20000)")
    parser.add_argument("--quality", type=Path, help="a .npy file of encoder vectors")
    defaults = Collective()
    parser.add_argument("--moved", type=float, default=defaults.moved)
    parser.add_argument("--grown", type=float, default=defaults.grown)
    parser.add_argument("--min-members", type=int, default=defaults.min_members)
    arguments = parser.parse_args()
    settings = Collective(moved=arguments.moved, grown=arguments.grown, min_members=arguments.min_members)
    found: dict[str, Any]
    if arguments.quality:
        vectors = np.load(arguments.quality)
        vectors = np.random.default_rng(1).permutation(vectors[np.linalg.norm(vectors, axis=1) > 0])
        kind: MemberKind = "user" if "user" in arguments.quality.name else "item"
        points = project(vectors)
        found = {
            "vectors": arguments.quality.name,
            "n": len(vectors),
            "ten_nearest_among_ten": round(kept_neighbours(vectors, points, 10), 3),
            "ten_nearest_among_hundred": round(kept_neighbours(vectors, points, 100), 3),
            "clusters": {n: quality(n, vectors, kind, settings) for n in N_CLUSTERS},
        }
    else:
        points, names = project(simulated(arguments.n)), [f"item:{n:08}" for n in range(arguments.n)]
        found = {
            "n": arguments.n,
            "clusters": {n: speed(n, names, points) for n in N_CLUSTERS},
            "bytes_per_member": bytes_per_member(names, points),
        }
    rules = {"moved": arguments.moved, "grown": arguments.grown, "min_members": arguments.min_members}
    print(json.dumps({"bench": "clusters", **found, **rules, "machine": machine(), "commit": commit()}))


if __name__ == "__main__":
    main()
