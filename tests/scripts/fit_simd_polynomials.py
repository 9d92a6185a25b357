"""Fits the polynomials of include/lowrank/simd/functions.hpp (minimax in the relative error of the function's result).

Prints each list of coefficients as float literals, lowest power first, and the error of the fit in units of 2^-24.
Needs numpy.
"""

import math

import numpy as np

erf, erfc = np.vectorize(math.erf), np.vectorize(math.erfc)


def minimax(target, powers, weight, low, high):
    """Lawson's algorithm: least squares whose weights grow where the error is large, on Chebyshev points."""
    x = (low + high) / 2 + (high - low) / 2 * np.cos(np.pi * (np.arange(4001) + 0.5) / 4001)
    x = x[np.abs(x) > 1e-4 * (high - low)]
    basis = np.stack([x**p for p in powers], axis=1) * weight(x)[:, None]
    wanted = target(x) * weight(x)
    lawson = np.ones_like(x)
    best, best_error = None, np.inf
    for _ in range(300):
        scale = np.abs(basis).max(axis=0)
        root = np.sqrt(lawson)
        coefficients = np.linalg.lstsq(basis / scale * root[:, None], wanted * root, rcond=None)[0] / scale
        error = np.abs(basis @ coefficients - wanted)
        if error.max() < best_error:
            best, best_error = coefficients, error.max()
        lawson *= error / error.max() + 1e-3
        lawson /= lawson.max()
    return best, best_error


def minus_log_erfc(t):
    return -np.log(erfc(t))


FITS = {
    "exp(r) - 1 - r = r^2 · P(r)": (
        lambda r: np.expm1(r) - r, range(2, 8), lambda r: np.exp(-r), -0.3467, 0.3467),
    "log(1 + f) - f + f^2/2 = f^3 · P(f)": (
        lambda f: np.log1p(f) - f + f * f / 2, range(3, 12), lambda f: 1 / np.abs(np.log1p(f)), -0.2929, 0.4143),
    "tanh(x) - x = x^3 · P(x^2), |x| < 0.625": (
        lambda x: np.tanh(x) - x, range(3, 13, 2), lambda x: 1 / np.tanh(x), 1e-4, 0.6251),
    "erf(x) - x = x · P(x^2), |x| < 0.9375": (
        lambda x: erf(x) - x, range(1, 13, 2), lambda x: 1 / erf(x), 1e-4, 0.9376),
    "-log(erfc(t)) - t = t · P(t), 0.9375 < t < 4": (
        lambda t: minus_log_erfc(t) - t, range(1, 8), lambda t: erfc(t) / erf(t), 0.9374, 4.0),
}

for name, arguments in FITS.items():
    coefficients, error = minimax(*arguments)
    print(f"{name}  (error {error * 2**24:.3f})")
    print("    " + ", ".join(f"{np.float32(c):.9g}f" for c in coefficients))
