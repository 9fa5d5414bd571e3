"""Randomness without state: every draw is a pure function of a seed, a name and counters, so history and live agree and a re-run repeats itself."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def name_key(seed: int, name: str) -> int:
    """A 64-bit key of one kind of draw."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "little")


class Noise:
    """Draws of one simulated world.

    Every method takes a name (what is drawn) and integer counters (for whom and when); counters broadcast like numpy arrays.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._keys: dict[str, int] = {}

    def bits(self, name: str, *counters: ArrayLike) -> NDArray[np.uint64]:
        """Uniform 64-bit integers."""
        key = self._keys.setdefault(name, name_key(self.seed, name))
        with np.errstate(over="ignore"):
            state: NDArray[np.uint64] = np.asarray(np.uint64(key))
            for counter in counters:
                state = _mix(state + np.asarray(counter, dtype=np.int64).astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(_GOLDEN))
            return state

    def uniform(self, name: str, *counters: ArrayLike) -> Floats:
        """Uniform in [0, 1)."""
        return (self.bits(name, *counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def between(self, low: float, high: float, name: str, *counters: ArrayLike) -> Floats:
        """Uniform in [low, high)."""
        return low + (high - low) * self.uniform(name, *counters)

    def integers(self, below: int, name: str, *counters: ArrayLike) -> Longs:
        """Uniform integers in [0, below)."""
        return (self.uniform(name, *counters) * below).astype(np.int64)

    def normal(self, name: str, *counters: ArrayLike) -> Floats:
        """Standard normal by Box and Muller's transform of the two halves of one draw."""
        bits = self.bits(name, *counters)
        first = ((bits >> np.uint64(32)).astype(np.float64) + 1.0) * 2.0**-32
        second = (bits & np.uint64(0xFFFFFFFF)).astype(np.float64) * 2.0**-32
        return np.sqrt(-2.0 * np.log(first)) * np.cos(2.0 * np.pi * second)

    def exponential(self, name: str, *counters: ArrayLike) -> Floats:
        """Exponential with mean 1."""
        return -np.log(1.0 - self.uniform(name, *counters))

    def generator(self, name: str, *counters: int) -> np.random.Generator:
        """A numpy generator for a sequence that must be drawn in order, such as the life of one machine."""
        return np.random.Generator(np.random.PCG64([name_key(self.seed, name) & _MASK, *counters]))
