"""Run a folded ConvFormer by fused kernels, row by row.

Each layer keeps only the rows that the next call still looks at, so a picture
of any height streams through the whole network: nothing is computed twice at
the borders of strips, memory grows with the width alone, and the rows at work
stay in the cache.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from relume.nn.convformer import FoldedConvFormer, FoldedFeedForward, FoldedMixer
from relume.nn.folding import centred
from relume.nn.native.build import NativeError, library
from relume.nn.norms import LayerNorm2d

KERNEL_SIZES = (3, 5, 7, 9, 11)
"""Sides of the mixer's kernel that are built."""

_CACHED_BYTES = 24 << 20
_LEAST_ROWS = 64


Floats = npt.NDArray[np.float32]

_NOTHING: Floats = np.empty(0, np.float32)


class _Dense(ctypes.Structure):
    _fields_ = (
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("inputs", ctypes.c_int),
        ("blocks", ctypes.c_int),
        ("vectors", ctypes.c_int),
    )


class _Rows(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_int)
        for name in ("height", "width", "top", "bottom", "src_top", "dst_top", "src_rows", "dst_rows")
    )


@dataclass(frozen=True)
class _Place:
    """Where a call reads and writes: addresses, and which rows of the picture."""

    src: int
    dst: int
    rows: _Rows
    skip: int | None = None
    skip_top: int = 0


@dataclass(frozen=True)
class _Layer:
    """One kernel with its weights.

    Attributes:
        run: does it for the rows at a place.
        reach: rows above and below that it looks at.
        width: channels of its output, padded.
    """

    run: Callable[[_Place], int]
    reach: int
    width: int


class NativeConvFormer:
    """A folded ConvFormer on the CPU, float32, any picture size.

    Args:
        folded: what `Network.folded` gave.
        threads: how many to use; None takes PyTorch's number.

    Raises:
        NativeError: the kernels cannot be built here, or do not cover these layers.
    """

    def __init__(self, folded: FoldedConvFormer, *, threads: int | None = None) -> None:
        self.scale = folded.scale
        self.channels = folded.shallow.in_channels
        self.threads = threads or torch.get_num_threads()
        self._kernels = library()
        self._lanes = int(self._kernels.relume_lanes())
        self._slack = int(self._kernels.relume_slack())
        self._kept: list[object] = []
        self._layers = [self._first(folded)]
        for layer in folded.layers:
            self._layers.append(self._inner(layer))
        self._layers += self._last_two(folded)
        self._buffers = (_NOTHING, _NOTHING)

    def __call__(self, low: Tensor) -> Tensor:
        """Map `B C H W` to `B C sH sW`; both float32 on the CPU."""
        batch, channels, height, width = low.shape
        output = torch.empty(batch, channels, height * self.scale, width * self.scale)
        for picture, enlarged in zip(low, output, strict=True):
            stream = self.stream(height, width, into=enlarged)
            for top in range(0, height, stream.strip):
                stream.push(picture[:, top : top + stream.strip])
        return output

    def stream(self, height: int, width: int, *, into: Tensor | None = None) -> Stream:
        """Begin a picture that comes in strips of rows.

        Args:
            height: of the whole input.
            width: of the whole input.
            into: `C sH sW`, contiguous, to write the output to; without it `push` returns the rows.
        """
        return Stream(self, height, width, into)

    def bytes_at_work(self, width: int) -> int:
        """Return the memory that a stream of that width takes, its strip of the output included, in bytes."""
        strip = self.strip(width)
        kept = sum(2 * layer.reach for layer in self._layers) + self._lag
        inner = (2 * self._buffer_rows(strip) + kept) * self._widest
        return 4 * width * (inner + (strip + self._lag) * self.channels * (1 + self.scale**2))

    def strip(self, width: int) -> int:
        """Return how many rows are taken at once: what stays in the cache, but not too few."""
        return max(_LEAST_ROWS, _CACHED_BYTES // (4 * self._widest * width))

    def buffers(self, width: int, strip: int) -> tuple[Floats, Floats]:
        """Return two buffers for the rows at work; the same ones again, as fresh memory costs time."""
        count = (self._buffer_rows(strip) * width + self._slack) * self._widest
        if len(self._buffers[0]) < count:
            self._buffers = (np.zeros(count, np.float32), np.zeros(count, np.float32))
        return self._buffers

    def _buffer_rows(self, strip: int) -> int:
        return strip + self._lag + 2 * max(layer.reach for layer in self._layers)

    @property
    def _widest(self) -> int:
        return max(layer.width for layer in self._layers[:-1])

    @property
    def _lag(self) -> int:
        """Rows by which the output waits for the input."""
        return sum(layer.reach for layer in self._layers)

    def _padded(self, channels: int) -> int:
        return -(-channels // self._lanes) * self._lanes

    def _address(self, tensor: Tensor) -> int:
        self._kept.append(tensor)
        return tensor.data_ptr()

    def _vector(self, values: Tensor) -> int:
        padded = torch.zeros(self._padded(len(values)))
        padded[: len(values)] = values.detach()
        return self._address(padded)

    def _dense(self, conv: nn.Conv2d) -> ctypes._Pointer[_Dense]:
        """Pack a dense convolution: blocks of output vectors × (taps · inputs) × the block's channels."""
        outputs, inputs = conv.weight.shape[:2]
        vectors = self._padded(outputs) // self._lanes
        at_once = next(count for count in (3, 2, 1) if vectors % count == 0)
        weight = conv.weight.detach().flatten(2)  # out in taps
        padded = weight.new_zeros(vectors * self._lanes, *weight.shape[1:])
        padded[:outputs] = weight
        blocks = padded.permute(2, 1, 0).reshape(-1, vectors // at_once, at_once * self._lanes)
        packed = blocks.permute(1, 0, 2).contiguous()
        assert conv.bias is not None
        dense = _Dense(self._address(packed), self._vector(conv.bias), inputs, vectors // at_once, at_once)
        self._kept.append(dense)
        return ctypes.pointer(dense)

    def _depthwise(self, conv: nn.Conv2d) -> tuple[int, int, int]:
        """Pack a depthwise convolution as (k · k) × channels; return weight, bias and k."""
        channels, _, kernel, _ = conv.weight.shape
        packed = torch.zeros(kernel * kernel, self._padded(channels))
        packed[:, :channels] = conv.weight.detach().flatten(1).T
        assert conv.bias is not None
        return self._address(packed), self._vector(conv.bias), kernel

    def _first(self, folded: FoldedConvFormer) -> _Layer:
        layer, mean = self._dense(folded.shallow), self._address(folded.mean.flatten().contiguous())
        return self._spatial(folded.shallow, layer, planes=True, mean=mean)

    def _last_two(self, folded: FoldedConvFormer) -> list[_Layer]:
        norm = folded.norm
        if not isinstance(norm, LayerNorm2d):
            raise NativeError(f"the native kernels know no {type(norm).__name__} before the fusion")
        fuse = self._spatial(folded.fuse, self._dense(folded.fuse), norm=norm)
        # The mean that is added to the output is the same for all sub-pixels, so the bias takes it.
        last = nn.Conv2d(folded.fuse.out_channels, folded.reconstruct.out_channels, 3).requires_grad_(False)
        last.weight.copy_(folded.reconstruct.weight)
        assert folded.reconstruct.bias is not None
        assert last.bias is not None
        last.bias.copy_(folded.reconstruct.bias + folded.mean.flatten().repeat_interleave(self.scale**2))
        return [fuse, self._spatial(last, self._dense(last), scale=self.scale)]

    def _spatial(
        self, conv: nn.Conv2d, layer: ctypes._Pointer[_Dense], *, planes: bool = False,
        mean: int | None = None, norm: LayerNorm2d | None = None, scale: int = 0,
    ) -> _Layer:  # fmt: skip
        channels = conv.in_channels
        stride = channels if planes else self._padded(channels)
        gain, shift = (self._vector(norm.weight), self._vector(norm.bias)) if norm else (None, None)
        eps = norm.eps if norm else 0.0

        def run(at: _Place) -> int:
            return int(
                self._kernels.relume_spatial(
                    ctypes.c_void_p(at.src), ctypes.c_void_p(at.dst), ctypes.byref(at.rows), channels, stride,
                    int(planes), ctypes.c_void_p(mean), ctypes.c_float(1), ctypes.c_void_p(gain),
                    ctypes.c_void_p(shift), ctypes.c_float(eps), layer, ctypes.c_void_p(at.skip), at.skip_top,
                    scale, self.channels, self.threads,
                )
            )  # fmt: skip

        return _Layer(run, reach=1, width=self._padded(conv.out_channels))

    def _inner(self, layer: nn.Module) -> _Layer:
        if isinstance(layer, FoldedMixer):
            return self._mixer(layer)
        if isinstance(layer, FoldedFeedForward):
            return self._feed_forward(layer)
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1):
            return self._pointwise(layer)
        raise NativeError(f"the native kernels know no {type(layer).__name__}")

    def _mixer(self, layer: FoldedMixer) -> _Layer:
        query, value = self._dense(centred(layer.query)), self._dense(centred(layer.value))
        project = self._dense(layer.project)
        spread, bias, kernel = self._depthwise(layer.spread)
        if kernel not in KERNEL_SIZES:
            raise NativeError(f"the native kernels cover mixers of {KERNEL_SIZES}, not of {kernel}")
        channels, eps = layer.query.in_channels, layer.eps

        def run(at: _Place) -> int:
            return int(
                self._kernels.relume_mixer(
                    ctypes.c_void_p(at.src), ctypes.c_void_p(at.dst), ctypes.byref(at.rows), channels,
                    ctypes.c_float(eps), query, ctypes.c_void_p(spread), ctypes.c_void_p(bias), kernel, value,
                    project, self.threads,
                )
            )  # fmt: skip

        return _Layer(run, reach=kernel // 2, width=self._padded(layer.project.out_channels))

    def _feed_forward(self, layer: FoldedFeedForward) -> _Layer:
        expand, contract = self._dense(centred(layer.expand)), self._dense(layer.contract)
        local, bias, _ = self._depthwise(layer.local)
        channels, eps = layer.expand.in_channels, layer.eps

        def run(at: _Place) -> int:
            return int(
                self._kernels.relume_feed_forward(
                    ctypes.c_void_p(at.src), ctypes.c_void_p(at.dst), ctypes.byref(at.rows), channels,
                    ctypes.c_float(eps), expand, ctypes.c_void_p(local), ctypes.c_void_p(bias), contract,
                    self.threads,
                )
            )  # fmt: skip

        return _Layer(run, reach=1, width=self._padded(layer.contract.out_channels))

    def _pointwise(self, layer: nn.Conv2d) -> _Layer:
        dense, stride = self._dense(layer), self._padded(layer.in_channels)

        def run(at: _Place) -> int:
            return int(
                self._kernels.relume_pointwise(
                    ctypes.c_void_p(at.src), ctypes.c_void_p(at.dst), ctypes.byref(at.rows), stride, dense,
                    self.threads,
                )
            )  # fmt: skip

        return _Layer(run, reach=0, width=self._padded(layer.out_channels))


class Stream:
    """One picture on its way through the network; see `NativeConvFormer.stream`.

    Two buffers take turns as input and output of the layers. In front of the new rows lie those that a
    layer has seen before and still looks at; between two pushes they are put by.

    Rows are copied by numpy: PyTorch would wake its threads, which then wait in a loop on the cores that
    the kernels need.
    """

    def __init__(self, network: NativeConvFormer, height: int, width: int, into: Tensor | None) -> None:
        self._network, self._layers = network, network._layers
        self._height, self._width, self._into = height, width, into
        self.strip = min(network.strip(width), height)
        """Most rows that one `push` takes."""
        self._picture = np.empty((network.channels, 0, width), np.float32)
        self._seen = 0
        self._kept = [_Kept(_NOTHING, 0)] * len(self._layers)
        self._made = [0] * len(self._layers)
        # The first layer's output is wanted again where the long skip ends.
        self._shallow = _Kept(_NOTHING, 0)

    def push(self, rows: Tensor) -> Tensor:
        """Take the next rows `C h W` of the input, at most `strip`; return what they complete.

        Returns:
            `C sh' sW`, of no rows while nothing is complete and always where the stream writes `into`
            a tensor. The last push brings all that is left.

        Raises:
            ValueError: more rows at once than `strip`, or more than the picture has.
        """
        if rows.shape[1] > min(self.strip, self._height - self._seen):
            raise ValueError(f"{rows.shape[1]} rows at once, after {self._seen} of {self._height}")
        buffers = self._network.buffers(self._width, self.strip)
        source = np.concatenate([self._picture, rows.detach().float().numpy()], 1)
        self._seen += rows.shape[1]
        top = self._seen - source.shape[1]
        done = self._made[0]
        seen = self._advance(0, source, top, self._seen, buffers[0])
        self._picture = source[:, max(top, seen - self._layers[0].reach) - top :].copy()
        self._keep_shallow(buffers[0], self._kept[1].top, done, seen)
        for index in range(1, len(self._layers) - 1):
            source, top, have = buffers[(index - 1) % 2], self._kept[index].top, seen
            seen = self._advance(index, source, top, have, buffers[index % 2])
            self._keep(index, source, top, seen, have)
        last = len(self._layers) - 1
        source, top = buffers[(last - 1) % 2], self._kept[last].top
        part = self._finish(source, top, seen)
        self._keep(last, source, top, self._made[last], seen)
        return part

    def _advance(self, index: int, source: Floats, top: int, have: int, target: Floats) -> int:
        """Run a layer on its rows `top` to `have`; return how far its output is made now."""
        layer, kept = self._layers[index], self._kept[index + 1]
        target[: len(kept.values)] = kept.values
        done = self._made[index]
        ready = self._ready(index, have)
        fuses = index == len(self._layers) - 2
        skip = self._shallow if fuses else None
        self._run(layer, source, top, have, done, ready, target, kept.top, 0, skip)
        if fuses:
            row = self._width * self._layers[0].width
            used = ready - self._shallow.top
            self._shallow = _Kept(self._shallow.values[used * row :].copy(), ready)
        self._made[index] = ready
        return ready

    def _finish(self, source: Floats, top: int, have: int) -> Tensor:
        """Run the last layer; return its rows unless they go into the caller's tensor."""
        last, scale, channels = len(self._layers) - 1, self._network.scale, self._network.channels
        done = self._made[last]
        ready = self._made[last] = self._ready(last, have)
        if self._into is None:
            part = torch.empty(channels, (ready - done) * scale, self._width * scale)
            self._run(
                self._layers[last], source, top, have, done, ready, part.numpy(), done, ready - done, None
            )
            return part
        self._run(
            self._layers[last], source, top, have, done, ready, self._into.numpy(), 0, self._height, None
        )
        return torch.empty(channels, 0, self._width * scale)

    def _ready(self, index: int, have: int) -> int:
        """Return how far a layer can be made from `have` rows of its input."""
        if have == self._height:
            return have
        return max(self._made[index], have - self._layers[index].reach)

    def _keep(self, index: int, source: Floats, top: int, made: int, have: int) -> None:
        """Put by the rows of a layer's input that it still looks at."""
        if have == self._height and made == have:
            return  # nothing comes any more
        row = self._width * self._layers[index - 1].width
        first = max(top, made - self._layers[index].reach)
        self._kept[index] = _Kept(source[(first - top) * row : (have - top) * row].copy(), first)

    def _keep_shallow(self, source: Floats, top: int, done: int, ready: int) -> None:
        row = self._width * self._layers[0].width
        new = source[(done - top) * row : (ready - top) * row]
        self._shallow = _Kept(np.concatenate([self._shallow.values, new]), self._shallow.top)

    def _run(
        self, layer: _Layer, source: Floats, top: int, have: int, done: int, ready: int, target: Floats,
        target_top: int, target_rows: int, skip: _Kept | None,
    ) -> None:  # fmt: skip
        if ready == done:
            return
        rows = _Rows(self._height, self._width, done, ready, top, target_top, have - top, target_rows)
        place = _Place(
            source.ctypes.data, target.ctypes.data, rows,
            skip=skip.values.ctypes.data if skip else None, skip_top=skip.top if skip else 0,
        )  # fmt: skip
        if layer.run(place):
            raise MemoryError("memory does not suffice for the native kernels")


class _Kept(NamedTuple):
    """Rows put by, H W C in one line, and which the first is."""

    values: Floats
    top: int
