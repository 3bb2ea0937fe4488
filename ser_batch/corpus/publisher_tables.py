"""Label tables as publishers lay them out, for corpora whose file names hold no labels."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from ser_batch.corpus.cells import cell_text
from ser_batch.corpus.filenames import Source, codes
from ser_batch.corpus.manifest import Recording
from ser_batch.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelTable:
    """The layout of a corpus's label table."""

    source: Source  # the corpus
    recording: str  # the file name, made of the table's columns; folders and suffix do not count
    emotions: Mapping[str, str]  # what is in the column `emotion`, in lower case, and what the tables say
    # names of the table's columns; None where it has none. Their names are what the table is recognized by
    emotion: str
    speaker: str
    statement: str
    sex: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the table is recognized by."""
        return tuple(column for column in (self.emotion, self.speaker, self.statement, self.sex) if column)

    def labels(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row with the columns of a labels file, but for path."""
        cells = {name: cell_text(row.get(name)) or "" for name in self.columns}
        speaker = "-".join(cells[self.speaker].lower().split())
        sex = cells[self.sex].lower() if self.sex else ""
        return {
            # a word that is not known stays as it is, so that what checks the row shows it
            "emotion": self.emotions.get(cells[self.emotion].lower(), cells[self.emotion]),
            "speaker": f"{self.source.name}-{speaker}" if speaker else "",
            "statement": cells[self.statement],
            "sex": sex if sex in {"male", "female"} else "",
            "corpus": self.source.name,
        }


_EMOTIONS = codes(
    "anger angry, disgust, fear fearful, joy happy, neutral, neutrality neutral, sadness sad, surprise surprised"
)

PUBLISHER_TABLES = (
    # metadata/samples.csv of https://zenodo.org/records/12616095: what the actors meant to express
    LabelTable(
        source=Source(
            name="emozionalmente",
            title="Emozionalmente",
            license="CC BY 4.0",
            commercial=True,
            conditions="commercial use allowed with attribution",
            citation="Catania, Wilke & Garzotto 2025, https://doi.org/10.1109/TASLPRO.2025.3540662",
            page="https://zenodo.org/records/12616095",
            access="one zip file",
        ),
        recording="{file_name}",
        emotions=_EMOTIONS,
        emotion="emotion_expressed",
        speaker="actor",
        statement="sentence",
    ),
    # metadata.csv of https://www.openslr.org/136: one speaker
    LabelTable(
        source=Source(
            name="emns",
            title="EMNS",
            license="Apache 2.0",
            commercial=True,
            conditions="commercial use allowed with attribution",
            citation="Noriy, Yang & Zhang 2023, https://github.com/knoriy/EMNS-DCT",
            page="https://www.openslr.org/136",
            access="metadata.csv and an archive",
        ),
        recording="{audio_recording}",
        emotions=codes("angry, disgust, excited, happy, neutral, sad, sarcastic, surprised"),
        emotion="emotion",
        speaker="user_id",
        statement="utterance",
        sex="gender",
    ),
    # train_sent_emo.csv, dev_sent_emo.csv and test_sent_emo.csv of https://github.com/declare-lab/MELD, one per folder
    LabelTable(
        source=Source(
            name="meld",
            title="MELD",
            license="GPL 3.0 for the labels, the sound is of a television series",
            commercial=False,
            citation="Poria et al. 2019, https://arxiv.org/abs/1810.02508",
            page="https://affective-meld.github.io",
            access="an archive of films",
        ),
        recording="dia{Dialogue_ID}_utt{Utterance_ID}",
        emotions=_EMOTIONS,
        emotion="Emotion",
        speaker="Speaker",
        statement="Utterance",
    ),
)


def publisher_table(columns: Iterable[str]) -> LabelTable | None:
    """Return the table whose columns these are; None where no known publisher has such a table."""
    return next((table for table in PUBLISHER_TABLES if set(table.columns) <= set(columns)), None)


class RecordingsByName:
    """Recordings by their file names, without folders and suffixes."""

    def __init__(self, recordings: Sequence[Recording]) -> None:
        self._paths: dict[str, list[str]] = {}
        for recording in recordings:
            self._paths.setdefault(PurePosixPath(recording.path).stem, []).append(recording.path)

    def path_of(self, table: LabelTable, row: Mapping[str, Any], where: str) -> str:
        """Return the path of a row's recording, or the name it should have where there is none."""
        try:
            name = PurePosixPath(table.recording.format_map(row)).stem
        except KeyError as error:
            raise InputError(
                f"{where}: no column {error.args[0]}, which names the recordings of {table.source.title}; "
                f"it has {', '.join(map(str, row))}"
            ) from error
        paths = self._paths.get(name, [])
        if len(paths) > 1:
            raise InputError(
                f"{where}: {name} is the name of {len(paths)} recordings ({paths[0]}, {paths[1]}); "
                f"a table of {table.source.title} is about one folder, give that folder alone"
            )
        return paths[0] if paths else name
