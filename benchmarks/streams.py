"""What becomes of sentences in a stream without end? Recordings one after the other, and who ends a sentence.

First: csp train configs/digits.toml. Each recording alone; all of them as one stream, which never ends or in which a
pause does; with silence between them of --gaps seconds.
"""

import argparse
from pathlib import Path

import numpy as np
from _timing import save, show

from csp.runtime import Recognizer
from csp.runtime.model import Model
from csp.speech import audio, manifest, wer

FLOOR = 1e-3  # of the silence's noise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("runs/digits/model.safetensors"))
    parser.add_argument("--manifest", default="runs/digits/corpus/manifest.tsv")
    parser.add_argument("--split", default="test")
    parser.add_argument("--gaps", default="0,1,2", help="default: %(default)s")
    parser.add_argument("--pauses", default="0.5,0.8,1,1.5", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("results/streams.json"))
    chosen = parser.parse_args()
    model = Model(chosen.model)
    rate, rng = model.mel.rate, np.random.default_rng(0)
    said = [one for one in manifest.read(chosen.manifest) if one.split == chosen.split]
    sounds = [audio.read(one.path, rate) for one in said]
    text = " ".join(one.text for one in said)
    alone = Recognizer(model)
    records = [_record("each alone", 0.0, len(said), text, [_heard(alone, [x])[0].text for x in sounds])]
    for gap in map(float, chosen.gaps.split(",")):
        silence = [(FLOOR * rng.normal(size=int(rate * gap))).astype(np.float32) for _ in sounds]
        stream = [piece for both in zip(sounds, silence, strict=True) for piece in both]
        for pause in (None, *map(float, chosen.pauses.split(","))):
            sentences = _heard(Recognizer(model, pause=pause), stream)
            what = "one stream" if pause is None else f"a pause of {pause:g} s"
            records.append(_record(what, gap, len(sentences), text, [one.text for one in sentences]))
    show(records, ["what", "gap", "sentences", "wer"])
    save([record | {"model": str(chosen.model)} for record in records], chosen.out)


def _heard(recognizer: Recognizer, pieces: list[np.ndarray]) -> list:
    sentences = []
    for x in pieces:
        recognizer.accept(x)
        sentences += recognizer.sentences()
    return [*sentences, recognizer.finish()]


def _record(what: str, gap: float, sentences: int, reference: str, heard: list[str]) -> dict:
    errors = wer.count(reference, " ".join(filter(None, heard)))
    return {"what": what, "gap": gap, "sentences": sentences, "wer": errors.rate, "words": errors.words}


if __name__ == "__main__":
    main()
