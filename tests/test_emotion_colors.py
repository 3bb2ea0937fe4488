"""One color per emotion, for every eye."""

import itertools

import numpy as np
import pytest

from ser_batch.report.emotion_colors import COLORS, OTHER, emotion_name, emotion_variable

PAPER = {"light": "#ffffff", "dark": "#0d1117"}
# as Machado, Oliveira and Fernandes (2009) simulate them, in linear RGB
VISION = {
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
# Ottosson's Oklab: linear RGB to cones, cones to lightness and two hues
CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def linear(color: str) -> np.ndarray:
    values = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def luminance(color: str) -> float:
    return float(linear(color) @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("number", [0, 1], ids=list(PAPER))
def test_colors_stand_out_from_their_paper(number):
    paper = luminance([*PAPER.values()][number])
    for name, both in COLORS.items():
        low, high = sorted((luminance(both[number]), paper))
        assert (high + 0.05) / (low + 0.05) >= 3, name


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("number", [0, 1], ids=list(PAPER))
def test_every_two_colors_differ_for_every_eye(number, vision):
    seen = {
        name: LAB @ np.cbrt(CONES @ np.clip(np.array(VISION[vision]) @ linear(both[number]), 0, 1))
        for name, both in COLORS.items()
    }
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 0.08, (one, other)


def test_a_label_that_is_none_of_them_has_the_color_of_all_others():
    assert emotion_variable("angry") == "var(--emotion-angry)"
    assert emotion_name("</style><script>") == OTHER
