"""How well the corpus of a segment can be told: from its MFCCs, and from what a model makes of them.

A network that can lean on the microphone learns less about voices. For each of the models a logistic regression is
fitted on the clean segments of several corpora, as many of each, in five folds of speakers that it does not know; its
balanced accuracy is printed, beside that of the same on mean and deviation of the MFCCs as they are, and as the model
scales them.

    python tests/benchmark/probe.py FEATURES FEATURES ... --model DIR --model DIR
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ser_batch.model.folder import find_model
from ser_batch.network.out_of_domain import summary_features
from ser_batch.tables.features import corpora, load_features
from ser_batch.training.references import speaker_stats_of

SEGMENTS_A_CORPUS = 400


def told(x: np.ndarray, corpus: np.ndarray, speaker: np.ndarray) -> float:
    """Return the balanced accuracy with which the corpus is told, on speakers that the probe does not know."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    return balanced_accuracy_score(corpus, cross_val_predict(probe, x, corpus, groups=speaker, cv=folds))


def main() -> None:
    """Print a line a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", nargs="+", type=Path)
    parser.add_argument("--model", action="append", required=True, metavar="DIR|NAME")
    arguments = parser.parse_args()
    data = load_features(arguments.features, wanted={"variant": {"clean"}})
    names = corpora(data.rows).to_numpy()
    generator = np.random.default_rng(0)
    rows = np.sort(
        np.concatenate(
            [generator.permutation(np.flatnonzero(names == name))[:SEGMENTS_A_CORPUS] for name in np.unique(names)]
        )
    )
    corpus, speaker = names[rows], data.rows["speaker"].to_numpy()[rows]
    mfcc, n_frames = data.mfcc[rows], data.n_frames[rows]
    plain = told(summary_features(mfcc, n_frames), corpus, speaker)
    print(f"{len(rows)} segments of {len(set(corpus))} corpora, chance {1 / len(set(corpus)):.3f}")
    print(f"mean and deviation of the MFCCs: {plain:.3f}")
    for name in arguments.model:
        model = find_model(name)
        voices = speaker_stats_of(data, model.schema.normalize)
        x = model.scaler.transform(mfcc, n_frames, voices.of(rows) if voices else None)
        scaled = told(summary_features(x, n_frames), corpus, speaker)
        embedded = told(model.network().embed(x), corpus, speaker)
        print(f"{name}: of scaled MFCCs {scaled:.3f}, of the embedding {embedded:.3f}")


if __name__ == "__main__":
    main()
