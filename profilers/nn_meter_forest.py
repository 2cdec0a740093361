"""Forest: a random forest as plain arrays, which NumPy evaluates and an npz file holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Floats
from nasmw.errors import ProfilerError

__all__ = ["Forest"]

Integers = npt.NDArray[np.int64]
FIELDS = ("roots", "feature", "threshold", "left", "right", "value")


@attrs.frozen(eq=False)
class Forest:
    """Regression trees whose mean is the prediction, all nodes of all trees in one row.

    It answers as scikit-learn's random forest does that it was made from, needs no scikit-learn, and is no pickle.

    Attributes:
        roots: The first node of each tree, ``(trees,)``.
        feature: Which feature a node compares, ``(nodes,)``.
        threshold: What with: a row goes left where its feature is not above it, ``(nodes,)``.
        left: The node to go on with, ``(nodes,)``; a leaf is its own.
        right: Likewise.
        value: What a leaf says, ``(nodes,)``.
    """

    roots: Integers
    feature: Integers
    threshold: Floats
    left: Integers
    right: Integers
    value: Floats

    @classmethod
    def of(cls, forest: Any, what: str = "the predictor") -> Forest:
        """Return the arrays of a fitted forest of scikit-learn.

        Raises:
            ProfilerError: If it is none.
        """
        trees: list[Any] = [getattr(estimator, "tree_", None) for estimator in getattr(forest, "estimators_", ())]
        if not trees or any(tree is None or tree.value.shape[1:] != (1, 1) for tree in trees):
            raise ProfilerError(f"{what} is no fitted random forest for regression, but a {type(forest).__name__}")
        counts = np.array([tree.node_count for tree in trees], dtype=np.int64)
        roots = np.cumsum(counts) - counts
        parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in FIELDS[1:]}
        for root, tree in zip(roots, trees, strict=True):
            own = np.arange(tree.node_count)
            leaf = tree.children_left < 0
            parts["left"].append(root + np.where(leaf, own, tree.children_left))
            parts["right"].append(root + np.where(leaf, own, tree.children_right))
            parts["feature"].append(np.where(leaf, 0, tree.feature))
            parts["threshold"].append(np.where(leaf, 0.0, tree.threshold))
            parts["value"].append(tree.value[:, 0, 0])
        return cls(roots, **{name: np.concatenate(arrays) for name, arrays in parts.items()})

    def predict(self, rows: Sequence[Sequence[float]] | Floats) -> Floats:
        """Return the predictions for rows of features, ``(n, features)``, as ``(n,)``."""
        features = np.asarray(rows, dtype=np.float32)  # scikit-learn compares in single precision
        if features.ndim != 2 or features.shape[1] <= self.feature.max():
            raise ProfilerError(
                f"the forest compares {self.feature.max() + 1} features, got rows of shape {features.shape}; was it "
                "made for another kind of kernel?"
            )
        nodes = np.broadcast_to(self.roots, (len(features), len(self.roots)))
        each = np.arange(len(features))[:, None]
        while True:
            goes_left = features[each, self.feature[nodes]] <= self.threshold[nodes]
            following = np.where(goes_left, self.left[nodes], self.right[nodes])
            if np.array_equal(following, nodes):
                mean: Floats = self.value[nodes].mean(axis=1)
                return mean
            nodes = following

    def scaled(self, factor: float) -> Forest:
        """Return the forest whose predictions are those of this one times a factor."""
        return attrs.evolve(self, value=self.value * factor)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays by the names of the attributes."""
        return {name: getattr(self, name) for name in FIELDS}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Forest:
        """Return the forest that `arrays` gave.

        Raises:
            ProfilerError: If the arrays are no forest.
        """
        nodes = arrays["value"].size
        whole = all(arrays[name].dtype.kind == "i" for name in ("roots", "feature", "left", "right"))
        one_row = all(arrays[name].shape == (nodes,) for name in FIELDS[1:])
        links = np.concatenate([arrays[name].ravel() for name in ("roots", "left", "right")])
        if not (one_row and whole and nodes and arrays["roots"].size) or links.min() < 0 or links.max() >= nodes:
            raise ProfilerError("the arrays of a forest do not belong together; the file is damaged")
        own = np.arange(nodes)
        back = (arrays["left"] < own) | (arrays["right"] < own)
        if back.any() or arrays["feature"].min() < 0:
            raise ProfilerError("the arrays of a forest make no trees; the file is damaged")
        return cls(**{name: np.asarray(arrays[name]) for name in FIELDS})
