"""Which recordings, and what is said in them? TSV, JSON lines (ours, NeMo's, Lhotse's) and LibriSpeech's folders.

`read` finds everything that is wrong with the text of a manifest at once; `csp.speech.check` opens the recordings too.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from csp.formats import FormatError, header, writing
from csp.speech.errors import DataError

SHOWN = 5  # problems that one error line names


class Utterance(NamedTuple):
    path: Path
    text: str
    id: str
    speaker: str = ""
    split: str = ""
    offset: float = 0.0
    duration: float | None = None
    line: int = 0


class Problem(NamedTuple):
    """One thing that is wrong, and where."""

    line: int
    what: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.what}" if self.line else self.what


def read(path: str | Path, split: str | None = None) -> list[Utterance]:
    """The utterances of a manifest or of a LibriSpeech folder, in its order; those of some splits, "a,b", if given."""
    found, problems = scan(path)
    refuse(Path(path), problems)
    splits = {u.split for u in found}
    wanted = splits if split is None else set(split.split(","))
    for name in sorted(wanted - splits):
        raise DataError(f"{path} has no split {name!r}; it has {sorted(splits)}")
    if not found:
        raise DataError(f"{path} has no utterance")
    return [u for u in found if u.split in wanted]


def refuse(path: Path, problems: Sequence[Problem]) -> None:
    if problems:
        shown = "; ".join(map(str, problems[:SHOWN]))
        more = f"; and {len(problems) - SHOWN} more: csp data check {path}" if len(problems) > SHOWN else ""
        raise DataError(f"{path}: {shown}{more}")


def scan(path: str | Path) -> tuple[list[Utterance], list[Problem]]:
    """What a manifest says, and everything that is wrong with how it says it."""
    path = Path(path)
    if path.is_dir():
        return _librispeech(path)
    if not path.is_file():
        raise DataError(f"{path} is no manifest and no folder: name a .tsv or .jsonl file, or a LibriSpeech folder")
    if path.suffix.lower() == ".csv":
        raise DataError(f"{path}: csp reads columns between tabs: save it as .tsv")
    text, problems = _decode(path.read_bytes())
    rows = _tsv(text) if path.suffix.lower() in (".tsv", ".txt") else _jsonl(text)
    found: list[Utterance] = []
    first: dict[str, int] = {}
    for line, row in rows:
        if isinstance(row, str):
            problems.append(Problem(line, row))
            continue
        utterance, wrong = _utterance(row, line, path.parent)
        if utterance is not None and utterance.id in first:
            wrong.append(f"id {utterance.id!r} stands on line {first[utterance.id]} too")
        problems += [Problem(line, what) for what in wrong]
        if utterance is not None:
            first.setdefault(utterance.id, line)
            found.append(utterance)
    return found, sorted(problems)


def write(path: Path, utterances: Iterable[Utterance]) -> None:
    """A TSV manifest, its paths relative to it."""
    lines = ["split\tid\tspeaker\tduration\tpath\ttext"]
    for u in utterances:
        at = u.path.relative_to(path.parent) if u.path.is_relative_to(path.parent) else u.path
        lines.append("\t".join([u.split, u.id, u.speaker, f"{u.duration or 0:.3f}", str(at), u.text]))
    writing.atomically(path, [("\n".join(lines) + "\n").encode()], overwrite=True)


def _decode(raw: bytes) -> tuple[str, list[Problem]]:
    problems = []
    for number, line in enumerate(raw.split(b"\n"), 1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            problems.append(Problem(number, f"no UTF-8 at byte {error.start}: save the file as UTF-8"))
    return raw.decode("utf-8", "replace").removeprefix("\ufeff").replace("\r\n", "\n"), problems


def _tsv(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    lines = [line.split("\t") if line else [] for line in text.split("\n")]
    head = lines[0]
    if twice := next((name for name in head if name and head.count(name) > 1), None):
        yield 1, f"its first line has the column {twice!r} twice"
        return
    if "text" not in head or not {"path", "audio", "audio_filepath"} & set(head):
        yield 1, f"its first line must name the columns path and text, it has {', '.join(head)[:80] or 'nothing'}"
        return
    for number, row in enumerate(lines[1:], 2):
        if row and len(row) != len(head):
            yield number, f"{len(row)} columns, the first line has {len(head)}"
        elif row:
            yield number, dict(zip(head, row, strict=True))


def _jsonl(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = header.strict_json(line.encode(), "line")
        except FormatError as error:
            yield number, str(error)[:80]
            continue
        yield number, _flat(row) if isinstance(row, dict) else "no JSON object"


def _flat(row: dict[str, Any]) -> dict[str, Any] | str:
    """A Lhotse cut as one row; others as they are."""
    if "supervisions" not in row:
        return row
    said, recording, custom = row["supervisions"], row.get("recording") or {}, row.get("custom") or {}
    sources = recording.get("sources") or [] if isinstance(recording, dict) else None
    whole = isinstance(said, list) and isinstance(sources, list) and isinstance(custom, dict)
    if not whole or not all(isinstance(one, dict) for one in [*said, *sources]):
        return "a cut whose supervisions, recording or custom are no lists and objects, as Lhotse's are"
    if len(said) != 1 or len(sources) != 1:
        return f"a cut with {len(said)} supervisions and {len(sources)} sources: csp reads cuts of one each"
    return {
        "id": row.get("id"),
        "path": sources[0].get("source"),
        "text": said[0].get("text"),
        "speaker": said[0].get("speaker"),
        "offset": row.get("start", 0.0),
        "duration": row.get("duration"),
        "split": custom.get("split", ""),
    }


def _utterance(row: dict[str, Any], line: int, folder: Path) -> tuple[Utterance | None, list[str]]:
    where = next((row[key] for key in ("path", "audio_filepath", "audio") if row.get(key)), None)
    text, wrong = row.get("text"), []
    if not isinstance(where, str):
        wrong.append("no path")
    elif ".." in Path(where).parts:
        wrong.append(f"path {where!r} leads out of the folder: write it without '..'")
    elif not (_is_unicode(where) and "\0" not in where):
        wrong.append(f"path {where!r} cannot be that of a file")
    if not isinstance(text, str):
        wrong.append("no text")
    elif not text.strip():
        wrong.append("its text is empty")
    wrong += [f"its {key} is no Unicode" for key in ("text", "id", "utt", "speaker") if not _is_unicode(row.get(key))]
    numbers: dict[str, Any] = {}
    for key, rest in (("offset", 0.0), ("duration", None)):
        try:
            numbers[key] = rest if row.get(key) in (None, "") else float(row[key])
        except (TypeError, ValueError, OverflowError):
            wrong.append(f"{key} {str(row[key])[:20]!r} is no number")
            continue
        if numbers[key] is not None and not 0 <= numbers[key] < 1e6:
            wrong.append(f"{key} {numbers[key]} is no time")
    if wrong:
        return None, wrong
    assert isinstance(where, str)
    name = str(next((row[key] for key in ("id", "utt") if row.get(key)), None) or f"{where}@{numbers['offset']:g}")
    found = Utterance(folder / where, str(text), name, str(row.get("speaker") or ""), str(row.get("split") or ""))
    return found._replace(offset=numbers["offset"], duration=numbers["duration"], line=line), []


def _is_unicode(value: Any) -> bool:
    """Half of a pair of surrogates, which JSON can write, is not."""
    return not (isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value))


def _librispeech(folder: Path) -> tuple[list[Utterance], list[Problem]]:
    """Folders of speakers and chapters, with a .trans.txt in each, as they come off the archive."""
    found, problems = [], []
    for transcript in sorted(folder.rglob("*.trans.txt")):
        text, wrong = _decode(transcript.read_bytes())
        problems += [Problem(p.line, f"{transcript.name}: {p.what}") for p in wrong]
        for number, line in enumerate(filter(None, text.split("\n")), 1):
            name, _, said = line.partition(" ")
            path = next(
                (p for p in (transcript.parent / f"{name}{end}" for end in (".flac", ".opus", ".wav")) if p.is_file()),
                None,
            )
            if path is None or not said.strip():
                problems.append(Problem(number, f"{transcript.name}: {name} has no {'recording' if said else 'text'}"))
                continue
            split = transcript.relative_to(folder).parts[0] if len(transcript.relative_to(folder).parts) > 3 else ""
            found.append(Utterance(path, said, name, name.split("-")[0], split, line=number))
    if not found and not problems:
        raise DataError(f"{folder} has no .trans.txt below it: name a LibriSpeech folder, or a .tsv or .jsonl file")
    return found, problems
