"""FAULTS 49: manifests of every dialect, and everything that can be wrong with one, said at once."""

import json

import numpy as np
import pytest

from csp.speech import audio, check, manifest, tokens
from csp.speech.errors import DataError


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        audio.write(tmp_path / f"{name}.wav", 0.1 * rng.normal(size=8000).astype(np.float32), 8000)
    return tmp_path


def put(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_every_dialect_says_the_same(folder):
    tsv = put(folder / "m.tsv", "path\ttext\tspeaker\tsplit\na.wav\tONE\ts\ttrain\nb.wav\tTWO\ts\ttest\n")
    ours = put(
        folder / "m.jsonl",
        '{"path":"a.wav","text":"ONE","speaker":"s","split":"train"}\n\n{"path":"b.wav","text":"TWO","speaker":"s","split":"test"}\n',
    )
    nemo = put(
        folder / "n.jsonl",
        "".join(
            json.dumps({"audio_filepath": f"{n}.wav", "text": t, "duration": 1.0, "speaker": "s", "split": p}) + "\n"
            for n, t, p in (("a", "ONE", "train"), ("b", "TWO", "test"))
        ),
    )
    lhotse = put(
        folder / "l.jsonl",
        "".join(
            json.dumps(
                {
                    "id": n,
                    "start": 0.0,
                    "duration": 1.0,
                    "supervisions": [{"text": t, "speaker": "s"}],
                    "recording": {"sources": [{"source": f"{n}.wav"}]},
                    "custom": {"split": p},
                }
            )
            + "\n"
            for n, t, p in (("a", "ONE", "train"), ("b", "TWO", "test"))
        ),
    )
    for path in (tsv, ours, nemo, lhotse):
        found = manifest.read(path)
        assert [(u.path.name, u.text, u.speaker, u.split) for u in found] == [
            ("a.wav", "ONE", "s", "train"),
            ("b.wav", "TWO", "s", "test"),
        ]
        assert [u.text for u in manifest.read(path, "test")] == ["TWO"]
    assert manifest.read(nemo)[0].duration == 1.0


def test_librispeech_as_it_comes(folder):
    place = folder / "dev" / "84" / "121123"
    place.mkdir(parents=True)
    audio.write(place / "84-121123-0000.flac", np.ones(800, np.float32), 16_000)
    put(place / "84-121123.trans.txt", "84-121123-0000 GO DO YOU HEAR\n")
    (u,) = manifest.read(folder)
    assert (u.text, u.speaker, u.id, u.split) == ("GO DO YOU HEAR", "84", "84-121123-0000", "dev")


def test_written_and_read_back(folder):
    manifest.write(folder / "w.tsv", [manifest.Utterance(folder / "a.wav", "ONE", "x", "s", "train", duration=1.0)])
    (u,) = manifest.read(folder / "w.tsv")
    assert (u.path, u.text, u.id, u.duration) == (folder / "a.wav", "ONE", "x", 1.0)


def test_a_mark_and_windows_line_ends_do_no_harm(folder):
    (folder / "m.tsv").write_bytes("\ufeffpath\ttext\r\na.wav\tONE\r\n".encode())
    assert [u.text for u in manifest.read(folder / "m.tsv")] == ["ONE"]


def test_all_errors_are_said_at_once_with_their_lines(folder):
    lines = [
        b'{"path":"a.wav","text":"ONE"}',
        b'{"path":',
        b'{"text":"X"}',
        b'{"path":"a.wav","text":"  "}',
        b'{"path":"../a.wav","text":"Y"}',
        b'{"path":"a.wav","text":"Z"}',
        b'{"path":"b.wav","text":"\xff"}',
        b'{"path":"c.wav","text":"D","duration":"long"}',
        b"[]",
        b'{"path":"d.wav","text":"E","text":"F"}',
        b'{"path":"e.wav","text":"G","duration":' + b"1" * 5000 + b"}",
        b'{"path":"\\ud800.wav","text":"H"}',
        b'{"path":"f.wav","text":"\\ud800"}',
        b'{"path":"g\\u0000.wav","text":"I"}',
    ]
    raw = b"\n".join(lines)
    (folder / "m.jsonl").write_bytes(raw)
    _, problems = manifest.scan(folder / "m.jsonl")
    said = {p.line: p.what for p in problems}
    for line, what in {
        2: "no JSON",
        3: "no path",
        4: "text is empty",
        5: "leads out",
        6: "stands on line 1 too",
        7: "no UTF-8",
        8: "is no number",
        9: "no JSON object",
        10: "the key 'text' stands twice",
        11: "an integer of 5000 digits",
        12: "cannot be that of a file",
        13: "its text is no Unicode",
        14: "cannot be that of a file",
    }.items():
        assert what in said[line], line
    with pytest.raises(DataError, match=r"m.jsonl: line 2: .*; and \d+ more: csp data check"):
        manifest.read(folder / "m.jsonl")


def test_tsv_without_its_columns(folder):
    with pytest.raises(DataError, match="its first line must name the columns path and text"):
        manifest.read(put(folder / "m.tsv", "a.wav\tONE\n"))
    with pytest.raises(DataError, match="line 2: 3 columns, the first line has 2"):
        manifest.read(put(folder / "m.tsv", "path\ttext\na.wav\tONE\tTWO\n"))
    with pytest.raises(DataError, match="its first line has the column 'text' twice"):
        manifest.read(put(folder / "m.tsv", "path\ttext\ttext\na.wav\tONE\tTWO\n"))
    with pytest.raises(DataError, match=r"m\.csv: csp reads columns between tabs: save it as \.tsv"):
        manifest.read(put(folder / "m.csv", "path,text\na.wav,ONE\n"))


def test_rows_of_no_dialect_are_said_and_not_raised(folder):
    lines = [
        '{"supervisions": 5}',
        '{"supervisions": [3], "recording": {"sources": [{}]}}',
        '{"supervisions": [], "recording": "x.wav"}',
        '{"path": "a.wav", "text": "A", "offset": 1' + 400 * "0" + "}",
    ]
    _, problems = manifest.scan(put(folder / "m.jsonl", "\n".join(lines)))
    assert [p.line for p in problems] == [1, 2, 3, 4]
    long = put(folder / "m.tsv", f"path\ttext\na.wav\thello\rworld\nb.wav\t{'A' * 200_000}\n")
    assert [len(u.text) for u in manifest.scan(long)[0]] == [11, 200_000]


def test_nothing_is_said_to_be_nothing(folder):
    with pytest.raises(DataError, match="first line must name"):
        manifest.read(put(folder / "m.tsv", ""))
    with pytest.raises(DataError, match=r"m\.tsv has no utterance"):
        manifest.read(put(folder / "m.tsv", "path\ttext\n"))
    with pytest.raises(DataError, match="no manifest and no folder"):
        manifest.read(folder / "none.tsv")
    with pytest.raises(DataError, match=r"has no split 'dev'; it has \['train'\]"):
        manifest.read(put(folder / "m.tsv", "path\ttext\tsplit\na.wav\tONE\ttrain\n"), "dev")


def test_check_knows_a_file_by_any_name(folder):
    lines = f"path\ttext\tsplit\na.wav\tONE\ttrain\n{folder / 'a.wav'}\tONE\ttest\n"
    _, problems = check.check(put(folder / "m.tsv", lines))
    assert {p.line for p in problems if "is in test and train" in p.what} == {2, 3}
    assert [str(p) for p in check.check(put(folder / "m.tsv", "path\ttext\n"))[1]] == ["it has no utterance"]


def test_check_opens_the_recordings(folder):
    audio.write(folder / "clipped.wav", np.sign(np.random.default_rng(0).normal(size=8000)), 8000)
    audio.write(folder / "silent.wav", np.zeros(8000, np.float32), 8000)
    audio.write(folder / "short.wav", np.zeros(3, np.float32), 8000)
    (folder / "text.wav").write_text("no sound")
    rows = [
        "a.wav\tONE\ttrain",
        "a.wav\tONE\ttest",
        "clipped.wav\tONE\t",
        "silent.wav\tONE\t",
        "short.wav\tONE\t",
        "text.wav\tONE\t",
        "gone.wav\tONE\t",
        "b.wav\tQ\t",
    ]
    path = put(folder / "m.tsv", "path\ttext\tsplit\n" + "\n".join(rows) + "\n")
    _, problems = check.check(path, 16_000, 0.5, tokens.Tokens("characters", tuple("ENO")))
    said = "\n".join(map(str, problems))
    for line, what in [
        (2, "has 8000 samples a second, the model 16000"),
        (2, "lasts 1.0 s"),
        (3, "is in test and train"),
        (4, "is clipped"),
        (5, "is silent"),
        (6, "is empty"),
        (7, "is no recording"),
        (8, "gone.wav is no file"),
        (9, "out of vocabulary: 'Q'"),
    ]:
        assert any(p.line == line and what in p.what for p in problems), (line, what, said)
