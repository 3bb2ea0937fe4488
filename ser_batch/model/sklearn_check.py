"""Checks of a scikit-learn model of a model folder: its compiled parts trust the arrays that they are given."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ser_batch.errors import ModelError

# the only types that a skops file of ours holds beyond those skops trusts by itself
_TRUSTED = [
    "sklearn.tree._tree.Tree",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
]


def check_archive(path: Path) -> None:
    """Refuse a zip archive of which more would be read than it is long: ours are not compressed."""
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = sum(member.file_size for member in archive.infolist())
    except Exception as error:  # zipfile raises whatever its parts do on a broken file
        raise ModelError(f"{path}: cannot be read ({error}); copy the folder again, or train again") from error
    size = path.stat().st_size
    if claimed > size:
        raise ModelError(f"{path}: its parts claim {claimed} bytes, it has {size}; train again")


def load_estimator(contents: bytes, n_features: int) -> Any:
    """Return the pipeline in a skops file; refuse what is none of ours, before anything of it is called."""
    # The compiled trees and support vector machines of scikit-learn read memory by the numbers in a file, unchecked.
    import skops.io
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    estimator = skops.io.loads(contents, trusted=_TRUSTED)
    _require(type(estimator) is Pipeline and len(estimator.steps) == 2, "it is no pipeline of two steps")
    scaler, model = (step for _, step in estimator.steps)
    _require(type(scaler) is StandardScaler, "it does not begin with a scaler")
    for values in (scaler.mean_, scaler.scale_):
        _require(np.shape(values) == (n_features,), f"its scaler is not one of {n_features} numbers")
    if type(model) is RandomForestClassifier:
        _check_forest(model, n_features)
    elif type(model) is CalibratedClassifierCV:
        _check_calibrated(model, n_features)
    else:
        _require(type(model) is LogisticRegression, "it ends with a model of another kind")
    return estimator


def _check_forest(model: Any, n_features: int) -> None:
    from sklearn.tree import DecisionTreeClassifier
    from sklearn.tree._tree import Tree

    for one in model.estimators_:
        _require(type(one) is DecisionTreeClassifier and type(one.tree_) is Tree, "it has something else among trees")
        tree = one.tree_
        n = tree.node_count
        # first: the views below are as long as this number says
        _require(0 < n <= tree.capacity, "a tree has fewer nodes than it says")
        _require(tree.n_outputs == 1 and tree.n_features == n_features, f"a tree is not one of {n_features} numbers")
        _require(tree.max_n_classes == len(model.classes_), "a tree is of other labels")
        left, right, numbers = tree.children_left, tree.children_right, np.arange(n)
        is_leaf = left == -1
        for children in (left, right):  # each after its parent, so that no way goes round
            _require(bool((is_leaf | ((children > numbers) & (children < n))).all()), "a tree has branches to nowhere")
        _require(
            bool((is_leaf | ((tree.feature >= 0) & (tree.feature < n_features))).all()),
            "a tree asks for numbers that are not there",
        )


def _check_calibrated(model: Any, n_features: int) -> None:
    from sklearn.svm import SVC

    for one in model.calibrated_classifiers_:
        machine = one.estimator
        _require(type(machine) is SVC and machine.kernel == "rbf", "it has something else than machines to calibrate")
        k, n = len(machine.classes_), len(machine.support_)
        n_pairs = k * (k - 1) // 2
        shapes = {
            "support_vectors_": (n, n_features),
            "_dual_coef_": (k - 1, n),
            "_intercept_": (n_pairs,),
            "_n_support": (k,),
        }
        _require(machine._sparse is False and k > 1, "a machine is of an unknown kind")
        for name, shape in shapes.items():
            _require(np.shape(getattr(machine, name)) == shape, f"a machine has {name} of another shape than {shape}")
        for name in ("_probA", "_probB"):
            _require(np.shape(getattr(machine, name)) in ((0,), (n_pairs,)), f"a machine has {name} of another shape")
        counts = np.asarray(machine._n_support)
        _require(bool((counts >= 0).all()) and int(counts.sum()) == n, "a machine has other vectors than it says")


def _require(is_so: bool, reason: str) -> None:
    if not is_so:
        raise ValueError(reason)
