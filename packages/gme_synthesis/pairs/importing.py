"""The step of a corpus of pairs: rows of any layout -> training examples, held-out tasks and the picture store.

Rows are read once, and pictures, examples and tasks are written in that pass. Memory grows with the held-out pairs and
by eight bytes for each pair, not with the texts.
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
from gme_synthesis.pairs.layouts import Pair, PairSide, Reader, candidate, layout_of, reader_of
from gme_synthesis.pairs.url_pictures import is_url, read_failures, url_stem

_MAX_DISTRACTORS = 10_000
"""The pool of a held-out task has at most so many documents of training pairs."""
_ID_CHARS = 24
Split = Literal["train", "dev", "test"]


def import_pairs(config: PairsConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Writes ``train/``, ``tasks/``, ``images/`` and ``rejects/``.

    Raises:
        FoundryError: A file is missing; a row can't be used, and `skip_bad` is off; no example is left to train on.
    """
    del inputs
    return import_rows(config, _TableRows(config), context.staging)


class PairRows(Protocol):
    """A source of rows for an import."""

    def count(self) -> int | None:
        """Returns the number of rows; None where it takes reading them."""

    def rows(self) -> Iterator[Row | RowError]:
        """Yields the rows in order, and errors in place of those that can't be read."""

    def reader(self, first: Row) -> Reader:
        """Returns the function from a row's values to a pair, chosen by the first row."""


def import_rows(config: PairsConfig, source: PairRows, staging: Path) -> Counts:
    """Writes the same files as `import_pairs`, of rows from any source, into `staging`."""
    with (
        closing(ImportIndex(staging / ".index.sqlite", config.pictures)) as index,
        ShardWriter(staging / "images", "images", SCHEMA, row_group_rows=ROW_GROUP_ROWS) as images,
    ):
        # Pictures come first, since the rows name them.
        pictures = PictureSource(config.pictures)
        for picture in pictures.store_rows(index, config.source, config.licence):
            images.add(picture)
        pairs, held_out = _PairReader(config, source, index, images), _HeldOutTasks(config)
        write_shards(staging / "train", "examples", _examples(config, pairs.pairs(), held_out), EXAMPLES_SCHEMA)
        tasks = held_out.write(staging / "tasks", unseen=pairs.have_entities)
        write_rejects(staging / "rejects", index.rejects())
        reasons = index.reasons()
    if not held_out.training_examples:
        raise FoundryError(
            f"{config.pairs}: nothing is left to train on: {'; '.join(f'{r.rows} x {r.reason}' for r in reasons)}.",
            hint="Lower `corpus.test` and `corpus.dev`, or bring more pairs.",
        )
    ImportSummary(tuple(reasons), count_by_suffix(pictures.passed_over)).write(staging)
    return {
        "pairs": pairs.count,
        "examples": held_out.training_examples,
        "held_out": held_out.queries,
        "tasks": tasks,
        "rejects": sum(reason.rows for reason in reasons),
    }


class _TableRows:
    """The `PairRows` of the file or folder that a configuration names."""

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
    """A URL gave no picture when it was fetched. Its row is refused, and the import goes on even without `skip_bad`."""


def pairs_of(config: PairsConfig) -> Iterator[Pair]:
    """Yields the pairs of all rows that can be read; an import reports the others.

    Raises:
        FoundryError: A file is missing or damaged.
    """
    reader: Reader | None = None
    for row in open_table(config.pairs, config.encoding).rows():
        if isinstance(row, Row):
            reader = reader or _reader_for(config, row)
            with suppress(CellError):
                yield reader(row.values)


class _PairReader:
    """Reads pairs, stores the pictures in their rows, and adds rows that can't be used to the rejects of the index.

    Attributes:
        count: Number of rows that could be used.
        have_entities: Whether each of them names an entity.
    """

    def __init__(self, config: PairsConfig, source: PairRows, index: ImportIndex, images: ShardWriter) -> None:
        self._config, self._source, self._index, self._images = config, source, index, images
        self._stored: set[bytes] = set()
        self._failures = read_failures(config.pictures)
        self.count = 0
        self.have_entities = True

    def pairs(self) -> Iterator[dict[str, Any]]:
        """Yields query, positives, their scores, negatives, group and instruction of each pair, without repeats."""
        source = self._source
        reader: Reader | None = None
        # 64 bits of a digest for each pair: of ten million pairs, two collide with a probability of 3e-6.
        keys: set[int] = set()
        with Progress("import", source.count(), "pairs") as progress:
            for row in source.rows():
                if isinstance(row, RowError):
                    self._refuse(row.reason, row.location, row.message)
                    continue
                reader = reader or source.reader(row)
                pair = self._read(row, reader)
                if pair is not None and self._is_new(pair, keys, row):
                    yield pair
                progress.advance()

    def _read(self, row: Row, reader: Reader) -> dict[str, Any] | None:
        """Returns the pair of a row; None, with a reject, if it can't be used."""
        try:
            pair = reader(row.values)
            if not pair.query:
                raise CellError("empty-query", f"no query: {_column_names(row)}")
            if not pair.positives or not all(pair.positives):
                raise CellError("empty-positive", f"no positive, or an empty one: {_column_names(row)}")
            if all(document.score <= 0 for document in pair.positives):
                self._index.reject("not-relevant", row.location, row.location, "its score says that nothing answers it")
                return None
            return self._to_dict(pair)
        except _NotFetchedError as error:
            self._index.reject(error.reason, row.location, row.location, str(error))
        except CellError as error:
            self._refuse(error.reason, row.location, str(error))
        return None

    def _to_dict(self, pair: Pair) -> dict[str, Any]:
        positives = [document for document in pair.positives if document.score > 0]
        # A document that was graded 0 was judged not to answer the query, so it is a negative.
        negatives = [*pair.negatives, *(document for document in pair.positives if document.score <= 0)]
        query = self._item(pair.query)
        self.have_entities = self.have_entities and bool(pair.entity)
        return {
            "query": query,
            "positives": [self._item(document) for document in positives],
            "scores": [document.score for document in positives],
            "negatives": [self._item(document) for document in negatives if document],
            "group": pair.entity or _digest(query["text"], query["image"])[:_ID_CHARS],
            "instruction": pair.instruction,
        }

    def _item(self, side: PairSide) -> dict[str, str | None]:
        return {"text": side.text.strip() or None, "image": self._image_id(side.picture)}

    def _image_id(self, picture: str | bytes | None) -> str | None:
        """Returns the id of a picture in the store; puts one that came as bytes there.

        Raises:
            CellError: There is no such picture, or several, or the bytes are none.
        """
        if picture is None:
            return None
        if is_url(picture):
            return self._fetched_image_id(picture)
        if isinstance(picture, str):
            match = self._index.match_name(picture)
            if match.problem:
                raise CellError(f"picture-{match.problem}", f"the picture {match.detail}")
            return match.image
        record = ImageRecord.from_bytes(picture, source=self._config.source, licence=self._config.licence)
        # A picture that many rows have is decoded and stored once.
        if bytes.fromhex(record.id) not in self._stored:
            try:
                decode_rgb(picture, record.id)
            except FoundryError as error:
                raise CellError("not-a-picture", str(error)) from error
            self._stored.add(bytes.fromhex(record.id))
            self._images.add(asdict(record))
        return record.id

    def _fetched_image_id(self, url: str) -> str:
        if image := self._index.match_stem(url_stem(url)).image:
            return image
        if reason := self._failures.get(url):
            raise _NotFetchedError(f"picture-{reason}", f"no picture was fetched from {url[:200]!r}")
        raise CellError("picture-not-fetched", f"the picture {url[:200]!r} is not there: run `gme corpus fetch`")

    def _is_new(self, pair: dict[str, Any], keys: set[int], row: Row) -> bool:
        items = (pair["query"], *pair["positives"])
        digest = _digest(pair["instruction"], *(item[name] for item in items for name in ("text", "image")))
        key = int(digest[:16], 16)
        if key in keys:
            self._index.reject("same-pair-twice", row.location, row.location, "an earlier row says the same")
            return False
        keys.add(key)
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
    """Returns the reader of all rows, by the configured layout or, if that is ``auto``, by the columns of the first."""
    layout = layout_of(first.values) if config.layout == "auto" else config.layout
    pool: dict[str, PairSide] = {}
    if layout == "m-beir":
        if config.candidates is None:
            raise FoundryError(f"{first.location}: M-BEIR names documents by id.", hint="Say `corpus.candidates`.")
        pool = dict(_read_candidates(config.candidates))
    return reader_of(layout, config.columns, pool)


def _read_candidates(path: Path) -> Iterator[tuple[str, PairSide]]:
    for row in open_table(path).rows():
        if isinstance(row, RowError):
            raise FoundryError(f"{row.location}: {row.message}")
        try:
            yield candidate(row.values)
        except CellError as error:
            raise FoundryError(f"{row.location}: {error}") from error


def _column_names(row: Row) -> str:
    return f"the row has {', '.join(map(str, row.values)) or 'no columns'}"


def _examples(config: PairsConfig, rows: Iterable[dict[str, Any]], held_out: _HeldOutTasks) -> Iterator[dict[str, Any]]:
    """Yields the rows of the training examples; adds every pair to `held_out`, which keeps those of other splits."""
    for row in rows:
        split, query_modality = _split_of(row["group"], config), _modality(row["query"])
        for positive, score in zip(row["positives"], row["scores"], strict=True):
            modality = _modality(positive)
            task_type = f"{query_modality}->{'VD' if config.pages and modality == 'I' else modality}"
            if task_type not in TASK_TYPES:
                raise FoundryError(f"A pair asks for a document of {task_type}, which is no task type.")
            held_out.add(row, positive, score, task_type, split)
            if split == "train":
                yield {
                    "id": _digest(row["instruction"], *row["query"].values(), *positive.values())[:_ID_CHARS],
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
    # The digest of the group alone decides, so that a later import of more pairs moves none to another split.
    position = int(_digest(str(config.seed), group)[:12], 16) / 16**12  # uniform in [0, 1)
    return "test" if position < config.test else "dev" if position < config.test + config.dev else "train"


def _modality(item: Mapping[str, str | None]) -> str:
    return ("I" if item["image"] else "") + ("T" if item["text"] else "")


@dataclass
class _TaskTables:
    """A held-out task in the making: queries, documents and grades by id, and the instruction of its first query."""

    instruction: str | None
    queries: dict[str, Query] = field(default_factory=dict)
    documents: dict[str, Document] = field(default_factory=dict)
    qrels: dict[str, dict[str, int]] = field(default_factory=dict)


class _HeldOutTasks:
    """Collects the tasks of dev and test from the pairs of all splits.

    Attributes:
        training_examples: Number of pairs of the split ``train``.
        queries: Number of queries of all written tasks.
    """

    def __init__(self, config: PairsConfig) -> None:
        self._config = config
        self._tasks: dict[tuple[str, Split], _TaskTables] = {}
        self._distractors: dict[str, dict[str, Document]] = {}
        self.training_examples = self.queries = 0

    def add(self, row: Mapping[str, Any], positive: dict[str, Any], score: int, task_type: str, split: Split) -> None:
        """Adds a pair of any split: to its task, or its document to the distractors of tasks of its type."""
        if split == "train":
            self.training_examples += 1
            distractors = self._distractors.setdefault(task_type, {})
            if len(distractors) < _MAX_DISTRACTORS:
                document = self._document(positive, row["group"])
                distractors.setdefault(document.id, document)
            return
        task = self._tasks.setdefault((task_type, split), _TaskTables(row["instruction"] or self._config.instruction))
        query = Item(**row["query"])
        id_ = _id_of(query)
        if id_ not in task.queries and len(task.queries) >= self._config.max_queries:
            return
        task.queries.setdefault(id_, Query(id_, query, row["group"], self._config.source, self._config.licence))
        relevant = self._document(positive, row["group"])
        task.documents[relevant.id] = relevant
        task.qrels.setdefault(id_, {})[relevant.id] = score
        for item in row["negatives"]:
            if _modality(item) == _modality(positive):
                negative = self._document(item, row["group"])
                task.documents.setdefault(negative.id, negative)

    def write(self, folder: Path, *, unseen: bool) -> int:
        """Writes ``<folder>/<split>/<task>``, without tasks of a single query; returns the number of tasks.

        Args:
            folder: The folder of all tasks.
            unseen: Whether the held-out pairs are about entities that are not trained on.
        """
        count = 0
        for (task_type, split), task in sorted(self._tasks.items(), key=lambda pair: pair[0]):
            if len(task.queries) < 2:
                continue
            for document in islice(self._distractors.get(task_type, {}).values(), _MAX_DISTRACTORS):
                task.documents.setdefault(document.id, document)
            name = f"{self._config.source}-{task_type.replace('->', '2').lower()}"
            save_task(folder / split / name, self._task(name, task_type, split, task, unseen=unseen))
            self.queries += len(task.queries)
            count += 1
        return count

    def _task(self, name: str, task_type: str, split: Split, task: _TaskTables, *, unseen: bool) -> RetrievalTask:
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
        content = Item(**item)
        return Document(_id_of(content), content, group, self._config.licence)


def _digest(*parts: str | None) -> str:
    """Returns the hex sha256 of some texts, in a tenth of the time that the digest of their JSON takes."""
    # Lengths separate the texts, so that ("ab", "c") and ("a", "bc") differ.
    joined = "".join(["-" if part is None else f"{len(part)}:{part}" for part in parts])  # faster than a generator
    return hashlib.sha256(joined.encode()).hexdigest()


def _id_of(item: Item) -> str:
    return _digest(item.text, item.image)[:_ID_CHARS]
