"""The types of a known corpus: its source and license, and the pattern of its file names."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ser_batch.corpus.manifest import Metadata

# what browsers and file managers put behind the name of a copy: (1), - Copy, - Copy (2), copy, copy 2, (copy)
_COPY_MARK = re.compile(
    r"(?: ?\(\d+\)| \((?:another )?copy(?: \d+)?\)| - copy(?: \(\d+\))?| copy(?: \d+)?)+(?=\.\w+$)", re.IGNORECASE
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Where a corpus comes from and what its license allows."""

    name: str  # the value of the column ``corpus`` and of the option ``--corpus``
    title: str  # the name its authors gave it
    license: str  # the license, as its publisher names it
    commercial: bool  # whether the license allows commercial use. False where the publisher states no license
    conditions: str = ""  # what else the license asks for, in a few words
    citation: str  # the attribution: the authors, and where they describe the corpus
    page: str  # the web page to get it from
    access: str  # how to get it there, in a few words

    @property
    def terms(self) -> str:
        """What a model trained on the corpus inherits, in words."""
        limits = "" if self.commercial else "not for commercial use"
        limits = ", ".join(filter(None, (limits, self.conditions)))
        return f"{self.license} ({'; '.join(filter(None, (self.title, limits)))})"

    @property
    def attribution(self) -> str:
        """Who made the corpus, for a model's card."""
        return f"{self.title.partition(',')[0]}: {self.citation}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus(Source):
    """A corpus whose file names say what its recordings are."""

    # matches the whole file name, or folder/name where the folder is a part of what is said. Its groups are columns of
    # the tables, and all of them are codes: a code that `meanings` and `speakers` do not know is no name of this
    # corpus. A group that did not take part in the match says nothing
    pattern: re.Pattern[str]
    # column to code to what the tables say; None where the corpus says something that has no place in them
    meanings: Mapping[str, Mapping[str, Any]]
    speakers: Mapping[str, str | None]  # code to sex, None where it is not published
    # wrong codes of speakers in the distribution, and what they stand for
    misprints: Mapping[str, str] = dataclasses.field(default_factory=dict)
    speaker_code: str = "{speaker}"  # the code of a speaker, made of the pattern's groups
    sentence: str = "{}"  # what a group `statement` without `meanings` becomes: the words around it
    # of all recordings, where names do not tell
    modality: str = "audio"
    vocal_channel: str = "speech"
    # matches the folder that such a name lies in, where other people name recordings so too. A recording in another is
    # recognized with ``--corpus NAME`` only
    folder: re.Pattern[str] | None = None

    def parse(self, name: str, folder: str, *, is_asked_for: bool) -> Metadata | None:
        """Return what a name says, or None where it is none of this corpus."""
        if self.folder is not None and not is_asked_for and self.folder.fullmatch(folder) is None:
            return None
        match = self._match(name, folder)
        if match is None:
            return None
        codes = {column: code for column, code in match.groupdict().items() if code is not None}
        if self.pattern.flags & re.IGNORECASE:
            codes = {column: code.lower() for column, code in codes.items()}
        speaker = self.speaker_code.format(**codes)
        speaker = self.misprints.get(speaker, speaker)
        del codes["speaker"]
        known = all(code in self.meanings[column] for column, code in codes.items() if column in self.meanings)
        if not known or speaker not in self.speakers:
            return None
        columns: dict[str, Any] = {"modality": self.modality, "vocal_channel": self.vocal_channel}
        for column, code in codes.items():
            sentence = self.sentence.format(code.replace("_", " "))
            columns[column] = self.meanings[column][code] if column in self.meanings else sentence
        return Metadata(
            **columns,
            corpus=self.name,
            actor=int(speaker) if speaker.isdecimal() else None,
            sex=self.speakers[speaker],
            speaker=f"{self.name}-{speaker.lower()}",
        )

    def performance(self, name: str, folder: str) -> str | None:
        """Return what a name says but for modality and format; None where it is none of this corpus."""
        match = self._match(name, folder)
        if match is None:
            return None
        start, end = match.span("modality") if "modality" in self.pattern.groupindex else (0, 0)
        said = match.string[:start] + match.string[end:]
        return said.rpartition(".")[0].lower()

    def _match(self, name: str, folder: str) -> re.Match[str] | None:
        names = dict.fromkeys((name, _COPY_MARK.sub("", name)))
        ways = [*names, *(f"{folder}/{one}" for one in names if "/" in self.pattern.pattern)]
        return next(filter(None, map(self.pattern.fullmatch, ways)), None)


def sexes(
    *, female: Iterable[object] = (), male: Iterable[object] = (), unknown: Iterable[object] = ()
) -> dict[str, str | None]:
    """Return the codes of speakers with their sex."""
    groups = (("female", female), ("male", male), (None, unknown))
    return {str(code): sex for sex, group in groups for code in group}


def codes(text: str) -> dict[str, str]:
    """Return code to label of ``A angry, F fearful``; a code alone is a label."""
    return {words[0]: words[-1] for words in map(str.split, text.split(", "))}


REPETITIONS = {str(number): number for number in range(1, 10)}
