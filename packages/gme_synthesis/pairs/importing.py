"""The step of a corpus of pairs: rows of any layout -> training examples, held-out tasks and the picture store.

Rows are read once: pictures are stored, examples written and tasks gathered on the way. Memory grows with what is held
out and with eight bytes a pair, not with texts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

from gme_data.cells import CellError
from gme_data.errors import FoundryError
from gme_data.examples import SCHEMA as EXAMPLES_SCHEMA
from gme_data.images import ROW_GROUP_ROWS, SCHEMA, ImageRecord, decode_rgb
from gme_data.items import TASK_TYPES, Item
from gme_data.parquet import ShardWriter, write_shards
from gme_data.progress import Progress
from gme_data.steps import Counts, StepContext
from gme_data.tables import Row, RowError, count_by_suffix, open_table
from gme_data.tasks import Document, Query, RetrievalTask, TaskCard, save_task
from gme_synthesis.corpus.import_index import ImportIndex
from gme_synthesis.corpus.import_pictures import PictureSource
from gme_synthesis.corpus.importing import ImportSummary
from gme_synthesis.funnel import write_rejects
from gme_synthesis.pairs.config import PairsConfig
from gme_synthesis.pairs.fetching import is_address, read_failures, stem_of
from gme_synthesis.pairs.layouts import Pair, PairSide, Reader, candidate, layout_of, reader_of

_POOL = 10_000
"""Documents in the pool of a held-out task that no held-out query asks for, at most."""
_ID = 24
Split = Literal["train", "dev", "test"]


def import_pairs(config: PairsConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Write ``train/``, ``tasks/``, ``images/`` and ``rejects/``.

    Raises:
        FoundryError: A file is missing; a row that can't be used, unless they are skipped; nothing is left to train on.
    """
    del inputs
    return import_rows(config, _TableRows(config), context.staging)


class PairRows(Protocol):
    """Where an import reads its rows."""

    def count(self) -> int | None:
        """Number of rows, where it is known without reading them."""

    def rows(self) -> Iterator[Row | RowError]:
        """The rows in order, and errors in place of those that can't be read."""

    def reader(self, first: Row) -> Reader:
        """What makes pairs of them, by the first."""


def import_rows(config: PairsConfig, source: PairRows, staging: Path) -> Counts:
    """As `import_pairs`, of rows from anywhere, into `staging`."""
    with (
        closing(ImportIndex(staging / ".index.sqlite", config.pictures)) as index,
        ShardWriter(staging / "images", "images", SCHEMA, row_group_rows=ROW_GROUP_ROWS) as images,
    ):
        pictures = PictureSource(config.pictures)
        for picture in pictures.store_rows(index, config.source, config.licence):
            images.add(picture)
        pairs, held_out = _Pairs(config, source, index, images), _HeldOut(config)
        write_shards(staging / "train", "examples", _examples(config, pairs.rows(), held_out), EXAMPLES_SCHEMA)
        tasks = held_out.write(staging / "tasks", unseen=pairs.have_entities)
        write_rejects(staging / "rejects", index.rejects())
        reasons = index.reasons()
    if not held_out.trained:
        raise FoundryError(
            f"{config.pairs}: nothing is left to train on: {'; '.join(f'{r.rows} x {r.reason}' for r in reasons)}.",
            hint="Lower `corpus.test` and `corpus.dev`, or bring more pairs.",
        )
    ImportSummary(tuple(reasons), count_by_suffix(pictures.passed_over)).write(staging)
    return {
        "pairs": pairs.count,
        "examples": held_out.trained,
        "held_out": held_out.asked,
        "tasks": tasks,
        "rejects": sum(reason.rows for reason in reasons),
    }


class _TableRows:
    """The rows of the file or folder that a configuration names."""

    def __init__(self, config: PairsConfig) -> None:
        self._config = config
        self._table = open_table(config.pairs, config.encoding)

    def count(self) -> int | None:
        return self._table.count()

    def rows(self) -> Iterator[Row | RowError]:
        return self._table.rows()

    def reader(self, first: Row) -> Reader:
        return _reader_for(self._config, first)


class _NotFetchedError(CellError):
    """A picture was asked for at its address, which gave none; it costs its row, and never stops the import."""


def pairs_of(config: PairsConfig) -> Iterator[Pair]:
    """The pairs of all rows that can be read; an import tells what is wrong with the others.

    Raises:
        FoundryError: A file is missing, or can't be read on.
    """
    reader: Reader | None = None
    for row in open_table(config.pairs, config.encoding).rows():
        if isinstance(row, Row):
            reader = reader or _reader_for(config, row)
            with suppress(CellError):
                yield reader(row.values)


class _Pairs:
    """Reads the pairs; pictures in their rows go to the picture store, what is wrong with them to the index.

    Attributes:
        count: Rows that could be used.
        have_entities: Whether each of them says what it is about.
    """

    def __init__(self, config: PairsConfig, source: PairRows, index: ImportIndex, images: ShardWriter) -> None:
        self._config, self._source, self._index, self._images = config, source, index, images
        self._stored: set[bytes] = set()
        self._failures = read_failures(config.pictures)
        self.count = 0
        self.have_entities = True

    def rows(self) -> Iterator[dict[str, Any]]:
        """What the rows say, each once: query, positives, their scores, negatives, group and instruction."""
        source = self._source
        reader: Reader | None = None
        # Eight bytes of a digest a pair: enough that of ten million two differ as surely as disks keep them.
        seen: set[int] = set()
        with Progress("import", source.count(), "pairs") as progress:
            for row in source.rows():
                if isinstance(row, RowError):
                    self._refuse(row.reason, row.location, row.message)
                    continue
                reader = reader or source.reader(row)
                packed = self._read(row, reader)
                if packed is not None and self._is_new(packed, seen, row):
                    yield packed
                progress.advance()

    def _read(self, row: Row, reader: Reader) -> dict[str, Any] | None:
        try:
            pair = reader(row.values)
            if not pair.query:
                raise CellError("empty-query", f"no query: {_names_of(row)}")
            if not pair.positives or not all(pair.positives):
                raise CellError("empty-positive", f"no positive, or an empty one: {_names_of(row)}")
            if all(part.score <= 0 for part in pair.positives):
                self._index.reject("not-relevant", row.location, row.location, "its score says that nothing answers it")
                return None
            return self._packed(pair)
        except _NotFetchedError as error:
            self._index.reject(error.reason, row.location, row.location, str(error))
        except CellError as error:
            self._refuse(error.reason, row.location, str(error))
        return None

    def _packed(self, pair: Pair) -> dict[str, Any]:
        answers = [part for part in pair.positives if part.score > 0]
        refused = [*pair.negatives, *(part for part in pair.positives if part.score <= 0)]
        query = self._item(pair.query)
        self.have_entities = self.have_entities and bool(pair.entity)
        return {
            "query": query,
            "positives": [self._item(part) for part in answers],
            "scores": [part.score for part in answers],
            "negatives": [self._item(part) for part in refused if part],
            "group": pair.entity or _digest(query["text"], query["image"])[:_ID],
            "instruction": pair.instruction,
        }

    def _item(self, part: PairSide) -> dict[str, str | None]:
        return {"text": part.text.strip() or None, "image": self._image(part.picture)}

    def _image(self, picture: str | bytes | None) -> str | None:
        if picture is None:
            return None
        if is_address(picture):
            return self._fetched(picture)
        if isinstance(picture, str):
            match = self._index.match_name(picture)
            if match.problem:
                raise CellError(f"picture-{match.problem}", f"the picture {match.detail}")
            return match.image
        record = ImageRecord.from_bytes(picture, source=self._config.source, licence=self._config.licence)
        if bytes.fromhex(record.id) not in self._stored:
            try:
                decode_rgb(picture, record.id)
            except FoundryError as error:
                raise CellError("not-a-picture", str(error)) from error
            self._stored.add(bytes.fromhex(record.id))
            self._images.add(asdict(record))
        return record.id

    def _fetched(self, address: str) -> str:
        if image := self._index.match_stem(stem_of(address)).image:
            return image
        if reason := self._failures.get(address):
            raise _NotFetchedError(f"picture-{reason}", f"no picture was fetched from {address[:200]!r}")
        raise CellError("picture-not-fetched", f"the picture {address[:200]!r} is not there: run `gme corpus fetch`")

    def _is_new(self, packed: dict[str, Any], seen: set[int], row: Row) -> bool:
        items = (packed["query"], *packed["positives"])
        key = int(
            _digest(packed["instruction"], *(item[side] for item in items for side in ("text", "image")))[:16], 16
        )
        if key in seen:
            self._index.reject("same-pair-twice", row.location, row.location, "an earlier row says the same")
            return False
        seen.add(key)
        self.count += 1
        return True

    def _refuse(self, reason: str, location: str, message: str) -> None:
        if not self._config.skip_bad:
            raise FoundryError(
                f"{location}: {message}",
                hint="Mend the row, say which column is which under `corpus.columns`, or set `corpus.skip_bad: true`.",
            )
        self._index.reject(reason, location, location, message)


def _reader_for(config: PairsConfig, first: Row) -> Reader:
    """The reader of all rows, by the names in the first."""
    layout = layout_of(first.values) if config.layout == "auto" else config.layout
    pool: dict[str, PairSide] = {}
    if layout == "m-beir":
        if config.candidates is None:
            raise FoundryError(f"{first.location}: M-BEIR names documents by id.", hint="Say `corpus.candidates`.")
        pool = dict(_candidates(config.candidates))
    return reader_of(layout, config.columns, pool)


def _candidates(path: Path) -> Iterator[tuple[str, PairSide]]:
    for row in open_table(path).rows():
        if isinstance(row, RowError):
            raise FoundryError(f"{row.location}: {row.message}")
        try:
            yield candidate(row.values)
        except CellError as error:
            raise FoundryError(f"{row.location}: {error}") from error


def _names_of(row: Row) -> str:
    return f"the row has {', '.join(map(str, row.values)) or 'no columns'}"


def _examples(config: PairsConfig, rows: Iterable[dict[str, Any]], held_out: _HeldOut) -> Iterator[dict[str, Any]]:
    """Rows of the training examples; what is held out goes to `held_out`."""
    for row in rows:
        split, asked = _split_of(row["group"], config), _modality(row["query"])
        for positive, score in zip(row["positives"], row["scores"], strict=True):
            modality = _modality(positive)
            task_type = f"{asked}->{'VD' if config.pages and modality == 'I' else modality}"
            if task_type not in TASK_TYPES:
                raise FoundryError(f"A pair asks for a document of {task_type}, which is no task type.")
            held_out.see(row, positive, score, task_type, split)
            if split == "train":
                yield {
                    "id": _digest(row["instruction"], *row["query"].values(), *positive.values())[:_ID],
                    "task_type": task_type,
                    "source": config.source,
                    "instruction": row["instruction"] or config.instruction,
                    "query": row["query"],
                    "positive": positive,
                    "negatives": [item for item in row["negatives"] if _modality(item) == modality],
                    "entity_group": row["group"],
                    "batch_key": row["group"],
                    "answer": None,
                    "licence": config.licence,
                    "split": split,
                }


def _split_of(group: str, config: PairsConfig) -> Split:
    """By the group alone, so that a later import of more pairs moves none."""
    share = int(_digest(str(config.seed), group)[:12], 16) / 16**12
    return "test" if share < config.test else "dev" if share < config.test + config.dev else "train"


def _modality(item: Mapping[str, str | None]) -> str:
    return ("I" if item["image"] else "") + ("T" if item["text"] else "")


@dataclass
class _Gathered:
    """A held-out task while it is gathered: queries, documents and grades by id; the instruction of its first query."""

    instruction: str | None
    queries: dict[str, Query] = field(default_factory=dict)
    documents: dict[str, Document] = field(default_factory=dict)
    qrels: dict[str, dict[str, int]] = field(default_factory=dict)


class _HeldOut:
    """Gathers the tasks of dev and test, and counts.

    Attributes:
        trained: Training examples.
        asked: Queries of all tasks.
    """

    def __init__(self, config: PairsConfig) -> None:
        self._config = config
        self._tasks: dict[tuple[str, Split], _Gathered] = {}
        self._fill: dict[str, dict[str, Document]] = {}
        self.trained = self.asked = 0

    def see(self, row: Mapping[str, Any], positive: dict[str, Any], score: int, task_type: str, split: Split) -> None:
        """Take note of a pair of any split."""
        if split == "train":
            self.trained += 1
            fill = self._fill.setdefault(task_type, {})
            if len(fill) < _POOL:
                document = self._document(positive, row["group"])
                fill.setdefault(document.id, document)
            return
        task = self._tasks.setdefault((task_type, split), _Gathered(row["instruction"] or self._config.instruction))
        query = Item(**row["query"])
        id_ = _id_of(query)
        if id_ not in task.queries and len(task.queries) >= self._config.max_queries:
            return
        task.queries.setdefault(id_, Query(id_, query, row["group"], self._config.source, self._config.licence))
        answer = self._document(positive, row["group"])
        task.documents[answer.id] = answer
        task.qrels.setdefault(id_, {})[answer.id] = score
        for item in row["negatives"]:
            if _modality(item) == _modality(positive):
                other = self._document(item, row["group"])
                task.documents.setdefault(other.id, other)

    def write(self, folder: Path, *, unseen: bool) -> int:
        """Write ``<folder>/<split>/<task>``; returns how many. A task of one query says nothing and is left out.

        Args:
            folder: Of the tasks.
            unseen: Whether what is held out is about entities that are not trained on.
        """
        written = 0
        for (task_type, split), task in sorted(self._tasks.items(), key=lambda pair: pair[0]):
            if len(task.queries) < 2:
                continue
            for document in islice(self._fill.get(task_type, {}).values(), _POOL):
                task.documents.setdefault(document.id, document)
            name = f"{self._config.source}-{task_type.replace('->', '2').lower()}"
            save_task(folder / split / name, self._task(name, task_type, split, task, unseen=unseen))
            self.asked += len(task.queries)
            written += 1
        return written

    def _task(self, name: str, task_type: str, split: Split, task: _Gathered, *, unseen: bool) -> RetrievalTask:
        card = TaskCard.model_validate(
            {
                "name": name,
                "task_type": task_type,
                "metric": "ndcg_at_10",
                "instruction": task.instruction,
                "split": split,
                # Without entities a query is held out alone: a document of its may answer others that are trained on.
                "subset": "unseen" if unseen else "seen",
                "description": f"Held-out pairs of {self._config.source}.",
                "relevance": "A document answers a query if a pair says so.",
                "licences": [self._config.licence],
                "images": "../../../images",
                "queries": len(task.queries),
                "pool": len(task.documents),
            }
        )
        return RetrievalTask(card, tuple(task.documents.values()), tuple(task.queries.values()), task.qrels)

    def _document(self, item: dict[str, Any], group: str) -> Document:
        made = Item(**item)
        return Document(_id_of(made), made, group, self._config.licence)


def _digest(*parts: str | None) -> str:
    """Hex sha256 of some texts, each told apart from the next by its length; a tenth of the time of their JSON's."""
    joined = "".join(["-" if part is None else f"{len(part)}:{part}" for part in parts])  # faster than a generator
    return hashlib.sha256(joined.encode()).hexdigest()


def _id_of(item: Item) -> str:
    return _digest(item.text, item.image)[:_ID]
