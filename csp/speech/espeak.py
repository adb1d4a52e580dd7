"""espeak-ng's voices, from the library that the wheel `espeakng-loader` carries (GPL: an extra, never needed)."""

import ctypes
from collections.abc import Callable

import espeakng_loader
import numpy as np

_RETRIEVE, _UTF8, _CHARACTERS = 2, 1, 1  # AUDIO_OUTPUT_SYNCHRONOUS, espeakCHARS_UTF8, POS_CHARACTER
_RATE, _PITCH, _RANGE = 1, 3, 4
_ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-us-nyc", "en-029")
VOICES = (
    *("f1", "f4", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8"),
    *("Alex", "Andrea", "Andy", "Annie", "Denis", "Gene", "Jacky", "Lee", "Michael", "Mike"),
    *("adam", "anika", "antonio", "aunty", "belinda", "benjamin", "boris", "caleb", "david", "ed", "edward"),
    *("grandma", "grandpa", "ian", "john", "linda", "marcelo", "max", "michel", "pablo", "paul", "pedro"),
    *("quincy", "rob", "robert", "shelby", "steph", "travis"),
)  # without the whispering, croaking, robotic and cartoon ones, and six whose breath is never twice the same


def open_() -> Callable:
    """say(text, voice, style) -> samples and their rate."""
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(_RETRIEVE, 0, espeakng_loader.get_data_path().encode(), 0)
    if rate <= 0:
        raise ImportError("espeak-ng does not start")
    blocks: list[np.ndarray] = []
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

    def heard(samples, count, events):
        if samples and count > 0:
            blocks.append(np.ctypeslib.as_array(samples, (count,)).astype(np.float32) / 32768)
        return 0

    callback = kind(heard)
    library.espeak_SetSynthCallback(callback)

    def say(text: str, voice: str, style) -> tuple[np.ndarray, int]:
        blocks.clear()
        name = f"{_ACCENTS[int(style.accent * len(_ACCENTS))]}+{voice}"
        if library.espeak_SetVoiceByName(name.encode()):
            raise RuntimeError(f"espeak-ng has no voice {name!r}")
        library.espeak_SetParameter(_RATE, int(125 + 90 * style.speed), 0)
        library.espeak_SetParameter(_PITCH, int(25 + 50 * style.pitch), 0)
        library.espeak_SetParameter(_RANGE, int(30 + 50 * style.range), 0)
        said = text.lower().encode()
        library.espeak_Synth(said, len(said) + 1, 0, _CHARACTERS, 0, _UTF8, None, None)
        library.espeak_Synchronize()
        return np.concatenate(blocks or [np.zeros(1, np.float32)]), rate

    say.callback = callback  # type: ignore[attr-defined]  # it must outlive this function
    return say
