"""One color per emotion, the same in every picture and page."""

from types import MappingProxyType

OTHER = "other"
# on white and on near-black paper. Chosen by search: each stands out from its paper by 3 to 1, and every two differ for
# all forms of color blindness (tests/test_emotion_colors.py); words stand beside them all the same
COLORS = MappingProxyType(
    {
        "angry": ("#f3576b", "#df0315"),
        "disgust": ("#6f8518", "#e7f285"),
        "fearful": ("#a43bc1", "#7c64d2"),
        "sad": ("#2926a2", "#7fa4f5"),
        "happy": ("#864900", "#e4a900"),
        "surprised": ("#73125d", "#ad3a7d"),
        "calm": ("#0b9d9d", "#67feff"),
        "neutral": ("#615b5c", "#bfbbb4"),
        OTHER: ("#46321a", "#a38f85"),
    }
)


def emotion_name(label: str) -> str:
    """Return the emotion whose color a label has: its own, or that of all others."""
    return label if label in COLORS else OTHER


def emotion_variable(label: str) -> str:
    """Return the color of a label in a page: a CSS variable, which follows light, dark and print."""
    return f"var(--emotion-{emotion_name(label)})"


def emotion_styles() -> str:
    """Return the CSS of all colors: the variables, and a class of each emotion."""
    light, dark = (" ".join(f"--emotion-{name}: {both[i]};" for name, both in COLORS.items()) for i in (0, 1))
    classes = "\n".join(f".emotion-{name} {{ color: var(--emotion-{name}); }}" for name in COLORS)
    dark_rule = f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"
    return f":root {{ {light} }}\n{dark_rule}\n{classes}\n"
