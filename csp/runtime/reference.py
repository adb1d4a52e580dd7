"""What do the kernels compute? The same in NumPy, operation by operation, so that int8 models give the same bits.

It is the oracle of the library's tests, and does its work, slowly, where the library could not be built.
"""

import numpy as np

from csp.runtime.matrix import Coded, Layer, Matrix, Several

_ROUND = np.float32(12582912)
_LANES = 16


class Reference:
    name = "reference"

    def pack(self, coded: Coded, layout: str | None = None) -> Matrix:
        wide = np.float32 if coded.floats or coded.inputs * 127 * 127 < 2**24 else np.float64
        weights = coded.dense().astype(wide)
        return Matrix(coded.inputs, coded.outputs, "dense", weights.nbytes, (weights, coded.scale))

    def linear(self, w: Matrix, bias: np.ndarray | None, x_BxI: np.ndarray) -> np.ndarray:
        y = _product(w, np.asarray(x_BxI, np.float32))
        return y if bias is None else bias + y

    def lstm(
        self, w: Matrix, r: Matrix, bias: np.ndarray, x_TxI: np.ndarray, h_H: np.ndarray, c_H: np.ndarray
    ) -> np.ndarray:
        gates_TxG = bias + _product(w, np.asarray(x_TxI, np.float32))
        out = np.empty((len(x_TxI), r.inputs), np.float32)
        for t, gates in enumerate(gates_TxG):
            h_H[:], c_H[:] = self.step(gates + _product(r, h_H[None])[0], c_H)
            out[t] = h_H
        return out

    def step(self, gates: np.ndarray, c_H: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        i, f, z, o = np.split(gates, 4)
        c_H = sigmoid(f) * c_H + sigmoid(i) * hyperbolic(z)
        return sigmoid(o) * hyperbolic(c_H), c_H

    def norm(
        self, x_TxD: np.ndarray, scale: np.ndarray, bias: np.ndarray, added: np.ndarray | None = None
    ) -> np.ndarray:
        width = np.float32(x_TxD.shape[1])
        centred = x_TxD - (_total(x_TxD) / width)[:, None]
        inverse = np.float32(1) / np.sqrt(_total(centred * centred) / width + np.float32(1e-5))
        y = (centred * inverse[:, None]) * scale + bias
        return y if added is None else y + added

    def tanh_of_sum(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return hyperbolic(a + b)

    def silu(self, x: np.ndarray) -> np.ndarray:
        return x * sigmoid(x)

    def gate(self, x_TxD: np.ndarray) -> np.ndarray:
        value, gate = np.split(x_TxD, 2, axis=1)
        return value * sigmoid(gate)

    def depthwise(self, x_TxD: np.ndarray, taps_KxD: np.ndarray) -> np.ndarray:
        rows = len(x_TxD) - len(taps_KxD) + 1
        y = np.zeros((rows, x_TxD.shape[1]), np.float32)
        for k, tap in enumerate(taps_KxD):
            y = y + x_TxD[k : k + rows] * tap
        return y

    def attend(self, q_RxHxE: np.ndarray, memory: np.ndarray, counts_R: np.ndarray) -> np.ndarray:
        rows, heads, size = q_RxHxE.shape
        scale, out = np.float32(1) / np.sqrt(np.float32(size)), np.zeros((rows, heads, size), np.float32)
        for r, count in enumerate(counts_R.tolist()):
            keys, values = (memory[r] if memory.ndim == 5 else memory)[:, :count]
            scores_HxS = _total((keys * q_RxHxE[r]).reshape(-1, size)).reshape(count, heads).T * scale
            p_HxS = exponential(scores_HxS - scores_HxS.max(axis=1, keepdims=True))
            for weight_H, value_HxE in zip(p_HxS.T, values, strict=True):
                out[r] = out[r] + value_HxE * weight_H[:, None]
            out[r] /= _total(p_HxS)[:, None]
        return out.reshape(rows, heads * size)

    def several(self, *layers: Layer) -> Several:
        return Several(layers[0][0][0].inputs, layers[-1][0][-1].outputs, layers)

    def project(self, x_TxD: np.ndarray, scale: np.ndarray, bias: np.ndarray, layers: Several) -> np.ndarray:
        y_TxD = self.norm(x_TxD, scale, bias)
        return np.stack([self._through(layer, y_TxD) for layer in layers.held])

    def feed(
        self, x_TxD: np.ndarray, scale: np.ndarray, bias: np.ndarray, two: Several, share: float = 1.0
    ) -> np.ndarray:
        up, down = two.held
        high_TxH = self.silu(self._through(up, self.norm(x_TxD, scale, bias)))
        return x_TxD + self._through(down, high_TxH) * np.float32(share)

    def rotate(self, x_TxHxE: np.ndarray, cos_TxE: np.ndarray, sin_TxE: np.ndarray) -> np.ndarray:
        (a, b), c, s = np.split(x_TxHxE, 2, axis=-1), cos_TxE[:, None], sin_TxE[:, None]
        return np.concatenate([a * c - b * s, a * s + b * c], axis=-1)

    def _through(self, layer: Layer, x_TxD: np.ndarray) -> np.ndarray:
        (*before, last), bias = layer
        for w in before:
            x_TxD = self.linear(w, None, x_TxD)
        return self.linear(last, bias, x_TxD)


def quantise(x_BxI: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes -127..127 as floats, and the scale of each row: max |x| / 127."""
    top_B = np.abs(x_BxI).max(axis=1, initial=0)
    heard = top_B > np.float32(1e-30)
    inverse_B = np.divide(np.float32(127), top_B, out=np.zeros_like(top_B), where=heard)
    codes = (x_BxI * inverse_B[:, None] + _ROUND) - _ROUND
    return codes, np.where(heard, top_B / np.float32(127), np.float32(0))


def _product(w: Matrix, x_BxI: np.ndarray) -> np.ndarray:
    weights, scale = w.held  # float32; or codes, in floats wide enough to add them exactly
    if scale is None:
        return x_BxI @ weights
    codes_BxI, scale_B = quantise(x_BxI)
    sums = (codes_BxI.astype(weights.dtype) @ weights).astype(np.float32)
    return sums * (scale * scale_B[:, None])


def exponential(x: np.ndarray) -> np.ndarray:
    f = np.float32
    x = np.minimum(np.maximum(x, f(-87)), f(88))
    n = (x * f(1.44269504) + _ROUND) - _ROUND
    r = (x - n * f(0.693359375)) + n * f(2.12194440e-4)
    p = np.full_like(x, f(1.9875691500e-4))
    for c in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        p = p * r + f(c)
    p = p * (r * r) + r + f(1)
    return p * ((n.astype(np.int32) + 127) << 23).view(np.float32)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.float32(1) / (exponential(-x) + np.float32(1))


def hyperbolic(x: np.ndarray) -> np.ndarray:
    return np.float32(1) - np.float32(2) / (exponential(x + x) + np.float32(1))


def _total(x_TxD: np.ndarray) -> np.ndarray:
    """The sum of each row: every 16th number in turn, then halves onto halves."""
    rows, width = x_TxD.shape
    lanes = np.zeros((rows, _LANES), np.float32)
    for first in range(0, width, _LANES):
        piece = x_TxD[:, first : first + _LANES]
        lanes[:, : piece.shape[1]] += piece
    half = _LANES // 2
    while half:
        lanes[:, :half] += lanes[:, half : 2 * half]
        half //= 2
    return lanes[:, 0]
