"""csp transcribe, csp eval and csp bench, as somebody types them: files, pipes, threads, and what goes wrong."""

import io
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import recognisers

from csp.cli import main
from csp.speech import audio
from csp.speech.features import LogMel
from csp.train import recognise


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    recognisers.write(path, recognisers.SMALL, values="int8")
    return path


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    import soundfile

    folder, found = tmp_path_factory.mktemp("sounds"), []
    for seed in range(3):
        found.append(folder / f"{seed}.wav")
        soundfile.write(str(found[-1]), recognisers.sound(seed=seed), 8000, "PCM_16")
    return found


def lines(capsys):
    return capsys.readouterr().out.splitlines()


def test_recordings_are_transcribed_in_order_whatever_the_threads(model, recordings, capsys):
    names = list(map(str, recordings))
    assert main(["transcribe", str(model), *names]) == 0
    one = lines(capsys)
    assert [line.split(": ")[0] for line in one] == names
    assert main(["transcribe", "--threads", "64", str(model), *names]) == 0
    assert lines(capsys) == one
    assert main(["transcribe", "--json", str(model), *names]) == 0
    found = [json.loads(line) for line in lines(capsys)]
    assert [f"{one['path']}: {one['text']}" for one in found] == one
    assert found[0]["words"][0].keys() == {"text", "start", "end", "confidence"}


def test_a_stream_ends_with_the_words_of_the_whole(model, recordings, capsys):
    assert main(["transcribe", "--json", str(model), str(recordings[0])]) == 0
    whole = json.loads(lines(capsys)[0])
    assert main(["transcribe", "--json", "--stream", str(model), str(recordings[0])]) == 0
    *partial, last = map(json.loads, lines(capsys))
    assert last == whole | {"final": True}
    assert len(partial) > 2
    assert not any(one["final"] for one in partial)


def test_a_stream_with_pauses_is_told_by_sentences(recordings, tmp_path, capsys):
    recognisers.write(tmp_path / "m.safetensors", recognisers.CONFIGS["lstm ctc"])
    heard = ["transcribe", "--pause", "0.1", str(tmp_path / "m.safetensors"), str(recordings[0])]
    assert main([*heard, "--json"]) == 0
    whole = json.loads(lines(capsys)[0])
    assert main([*heard, "--json", "--stream"]) == 0
    said = [one for one in map(json.loads, lines(capsys)) if one["final"]]
    assert len(said) > 1
    assert [word for one in said for word in one["words"]] == whole["words"]
    assert main([*heard, "--stream"]) == 0
    printed = [line for line in lines(capsys) if not line.endswith(" ...")]
    assert printed == [f"{recordings[0]}: {one['text']}" for one in said if one["text"]]
    heard[2] = "0"
    assert main(heard) == 2
    assert capsys.readouterr().err.strip() == "csp transcribe: a pause of 0.0 seconds must be positive"


def _piped(model, sound: bytes, *more: str):
    command = [sys.executable, "-m", "csp", "transcribe", str(model), "-", *more]
    return subprocess.run(command, input=sound, capture_output=True, timeout=60)


def test_raw_samples_are_heard_on_standard_input(model, recordings, capsys):
    import soundfile

    x, _ = soundfile.read(str(recordings[0]), dtype="int16")
    assert main(["transcribe", str(model), str(recordings[0])]) == 0
    expected = lines(capsys)[0].split(": ", 1)[1]
    assert _piped(model, x.tobytes()).stdout.decode().strip() == f"-: {expected}"
    assert _piped(model, x.tobytes() + b"\x00").stdout.decode().strip() == f"-: {expected}"  # half a sample
    assert _piped(model, b"").stdout.decode().strip() == "-:"


def test_a_reader_that_goes_away_is_no_error(model, recordings):
    code = (
        f"{sys.executable} -m csp transcribe --stream {model} "
        f"{' '.join(str(path) for path in recordings * 20)} | head -n 1"
    )
    done = subprocess.run(["bash", "-o", "pipefail", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["MODEL", "nowhere.wav"], 4, "nowhere.wav is no file"),
        (["MODEL", "TEXT"], 4, "is no recording that csp reads"),
        (["nothing.safetensors", "SOUND"], 2, "nothing.safetensors"),
        (["TEXT", "SOUND"], 5, "words.txt: "),
        (["--threads", "0", "MODEL", "SOUND"], 2, "--threads 0 must be positive"),
        (["--beam", "0", "MODEL", "SOUND"], 2, "a beam of 0 hypotheses"),
        (["--rate", "1", "MODEL", "-"], 2, "csp hears 4000 to 192000"),
    ],
)
def test_what_goes_wrong_is_one_line(model, recordings, tmp_path, capsys, monkeypatch, arguments, code, why):
    text = tmp_path / "words.txt"
    text.write_text("these are no samples")
    known = {"MODEL": str(model), "SOUND": str(recordings[0]), "TEXT": str(text)}
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\x00\x00")))
    assert main(["transcribe", *(known.get(a, a) for a in arguments)]) == code
    said = capsys.readouterr().err
    assert why in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("more", [[], ["--threads", "2"], ["--stream"]])
def test_a_bad_recording_does_not_cost_the_others(model, recordings, tmp_path, capsys, more):
    bad = tmp_path / "nan.wav"
    pytest.importorskip("soundfile").write(str(bad), np.full(800, np.nan, np.float32), 8000, "FLOAT")
    names = [str(recordings[0]), str(bad), str(recordings[1])]
    good = [json.loads(line) for line in _said(capsys, ["--json", *more, str(model), names[0], names[2]], 0)]
    found = [json.loads(line) for line in _said(capsys, ["--json", *more, str(model), *names], 4)]
    why = f"{bad} has samples that are NaN, infinite or beyond 100: it is no sound"
    assert {"path": str(bad), "error": why} in found
    assert [one for one in found if "error" not in one] == good
    plain = _said(capsys, [*more, str(model), *names], 4)
    assert not any(str(bad) in line for line in plain)
    assert plain[-1] == f"{names[2]}: {good[-1]['text']}"


def _said(capsys, arguments, code):
    assert main(["transcribe", *arguments]) == code
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == bool(code)
    return said.out.splitlines()


def test_a_damaged_model_is_refused(model, recordings, tmp_path, capsys):
    damaged = tmp_path / "m.safetensors"
    spoiled = bytearray(model.read_bytes())
    spoiled[-5] ^= 1
    damaged.write_bytes(spoiled)
    assert main(["transcribe", str(damaged), str(recordings[0])]) == 5
    assert "digest" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rate", "channels", "subtype"), [(16_000, 2, "PCM_24"), (44_100, 1, "FLOAT"), (8000, 2, "PCM_U8")]
)
def test_other_rates_channels_and_samples_are_heard(model, tmp_path, capsys, rate, channels, subtype):
    import soundfile

    x = recognisers.sound()
    at = np.arange(int(len(x) * rate / 8000)) * 8000 / rate
    y = np.interp(at, np.arange(len(x)), x).astype(np.float32)
    path = tmp_path / "a.wav"
    soundfile.write(str(path), np.stack([y] * channels, axis=1), rate, subtype)
    assert main(["transcribe", "--json", str(model), str(path)]) == 0
    assert json.loads(lines(capsys)[0])["text"]


SAID_AND_HEARD = [
    ("test", "u5", "ann", "a b c, d e", "A B C D E"),
    ("test", "u4", "bob", "A B C", "A D C E"),  # one substituted, one inserted
    ("train", "u3", "bob", "A", "B B B B B"),
    ("test", "u2", "bob", "D E", ""),  # two deleted
    ("test", "u1", "ann", "E A", "E A B"),  # one inserted
    ("test", "u0", "ann", "C", "C"),
]


def test_eval_prints_what_a_hand_counts(tmp_path, capsys, monkeypatch):
    """Five errors in thirteen words; the worst first, of equals the first by name, and none that is right."""
    rows = ["split\tid\tspeaker\ttext\tpath"]
    for split, name, speaker, said, _ in SAID_AND_HEARD:
        audio.write(tmp_path / f"{name}.wav", recognisers.sound(0.5), 8000)
        rows.append(f"{split}\t{name}\t{speaker}\t{said}\t{name}.wav")
    (tmp_path / "m.tsv").write_text("\n".join(rows) + "\n")

    def told(*said):
        """A recogniser that hears what it is told."""
        texts = iter([heard for split, *_, heard in SAID_AND_HEARD if split == "test"])
        return SimpleNamespace(
            rate=8000,
            model=SimpleNamespace(mel=LogMel(8000, 6), tokens=recognisers.TOKENS),
            accept=lambda x: None,
            finish=lambda: SimpleNamespace(text=next(texts)),
        )

    monkeypatch.setattr(recognise, "open_", told)
    asked = ["eval", "model", "--manifest", str(tmp_path / "m.tsv"), "--split", "test"]
    assert main(asked) == 0
    first, _, *tables = lines(capsys)
    low, high = (float(x.strip("%")) for x in first.split("(")[1].split(")")[0].split(" to "))
    assert first.startswith("WER 38.46% (")
    assert ") of 13 words: 1 substituted, 2 inserted, 2 deleted; real-time factor " in first
    assert 0 <= low < 38.46 < high <= 100
    assert tables == [
        "speaker     WER  words",
        "-------  ------  -----",
        "ann      12.50%      8",
        "bob      80.00%      5",
        "",
        "utterance  said   heard",
        "---------  -----  -------",
        "u2         D E",
        "u4         A B C  A D C E",
        "u1         E A    E A B",
    ]
    assert main([*asked, "--json"]) == 0
    found = json.loads(lines(capsys)[0])
    assert found["wer"] == pytest.approx(5 / 13)
    assert {key: found[key] for key in ("words", "utterances", "substitutions", "insertions", "deletions")} == {
        "words": 13,
        "utterances": 5,
        "substitutions": 1,
        "insertions": 2,
        "deletions": 2,
    }
    assert found["speakers"] == {"ann": {"wer": 1 / 8, "words": 8}, "bob": {"wer": 4 / 5, "words": 5}}
    assert [one["id"] for one in found["worst"]] == ["u2", "u4", "u1"]
    assert found["examples"][0] == {"id": "u5", "reference": "A B C D E", "heard": "A B C D E"}
    assert [round(100 * found[key], 2) for key in ("wer_low", "wer_high")] == [low, high]


def test_bench_measures_every_form(model, recordings, capsys):
    assert main(["bench", str(model), "--audio", str(recordings[0]), "--repeats", "1", "--json"]) == 0
    found = json.loads(lines(capsys)[0])
    assert [row["form"] for row in found["forms"]] == ["stored", "dense int8", "dense float32"]
    stored, int8, float32 = found["forms"]
    assert stored["matrices_bytes"] < float32["matrices_bytes"]
    assert int8["matrices_bytes"] < float32["matrices_bytes"]
    for row in found["forms"]:
        assert row["load_ms"] > 0
        assert row["peak_mb"] > 10
        assert 0 < row["chunk_p50_ms"] <= row["chunk_p99_ms"]
    assert main(["bench", str(model), "--audio", str(recordings[0]), "--repeats", "1"]) == 0
    assert "dense float32" in capsys.readouterr().out
