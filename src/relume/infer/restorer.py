"""A model ready for use: picture in, picture out, of any size, within any memory.

The output is made from top to bottom in strips as wide as the picture: colour and alpha beside each
other, resampled to the size asked for, compared with the input, and put where the output lies. Strips
come from rows of tiles that overlap by the operator's halo, or from an engine that streams.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from relume.core.errors import RelumeError
from relume.core.pictures import Canvas, Picture, StoredPicture, canvas_bytes
from relume.infer.adapters import fitted
from relume.infer.blending import blended_strips
from relume.infer.choosing import make_ready
from relume.infer.consistency import Consistency
from relume.infer.engines.base import Engine, Place, Streaming
from relume.infer.ensemble import Ensemble
from relume.infer.faithful import Corrected
from relume.infer.footprint import bytes_per_pixel, measured_bytes_per_pixel
from relume.infer.guard import Guarded
from relume.infer.operators import Chain, Operator
from relume.infer.resampling import RowResampler
from relume.infer.sizing import OVERLAP, Frame, room_for, tile_side
from relume.infer.sources import Source
from relume.infer.targets import Target, steps
from relume.infer.tiling import Tiler, run_tiled
from relume.infer.wishes import WHOLE, Wishes
from relume.nn.channels import COLOUR_PLANES
from relume.nn.network import Network

_AT_ONCE = 16 << 20
"""Bytes of a strip that are looked at, resampled and compared at once."""


@dataclass(frozen=True)
class Result:
    """What became of a picture.

    Attributes:
        picture: the output, of the kind that came in.
        consistency: dB between the input and the output shrunk to it (`infer.consistency`).
        notes: what a user should know, one sentence each.
        models: names of those that ran, in order.
    """

    picture: Picture | StoredPicture
    consistency: float
    notes: tuple[str, ...]
    models: tuple[str, ...]


@dataclass(frozen=True)
class Relative:
    """A model for another scale, loaded when it is needed.

    Attributes:
        name: what to call it.
        load: loads it.
    """

    name: str
    load: Callable[[], Network]


class Restorer:
    """A loaded model, called with a picture.

    Args:
        network: the model, in evaluation mode.
        name: what to call it.
        engine: name of the engine; "auto" takes the quickest here; None takes `choosing.default_engine`.
        place: where to run; None takes a CUDA GPU where there is one, else the CPU.
        relatives: the same system for other scales, used where a target asks for them.
        say: told what takes long or had to be done otherwise, one line each.

    Raises:
        UnknownNameError: no such engine.
        EngineError: the engine or device is not there, or disagrees with PyTorch.
    """

    def __init__(
        self,
        network: Network,
        *,
        name: str,
        engine: str | None = None,
        place: Place | None = None,
        relatives: Mapping[int, Relative] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.name = name
        self.contract = network.contract
        self._say = say
        self._networks = {self.scale: network}
        self._relatives = dict(relatives or {})
        self.engine = make_ready(network, engine=engine, place=place, say=say)
        self._engines = {self.scale: self.engine}
        self._footprints: dict[object, float | None] = {}

    @property
    def scale(self) -> int:
        """Output pixels for each input pixel along a side, where no target asks for others."""
        return self.contract.scale

    @property
    def scales(self) -> tuple[int, ...]:
        """Scales of the models at hand."""
        return tuple(sorted({self.scale, *self._relatives}))

    def __call__(
        self, picture: Picture, *, tile: int | None = None, advance: Callable[[float], None] | None = None
    ) -> Picture:
        """Enlarge a picture by the model's scale; see `restore` for more.

        Args:
            picture: what `relume.read` gave.
            tile: longest side of the tiles in input pixels, `WHOLE` for one piece, None: what memory allows.
            advance: told the share done, 0..1.
        """
        enlarged = self.restore(picture, Wishes(tile=tile), advance=advance).picture
        assert isinstance(enlarged, Picture)
        return enlarged

    def restore(
        self,
        picture: Picture | StoredPicture,
        wishes: Wishes | None = None,
        *,
        bits: int | None = None,
        advance: Callable[[float], None] | None = None,
    ) -> Result:
        """Enlarge a picture; gray stays gray, alpha is enlarged as a plane of its own, metadata is kept.

        Args:
            picture: what `relume.read` gave, or `open_stored`; the levels of a stored one may be changed.
            wishes: how; None for the model's scale and what memory allows.
            bits: in which the output will be written; None takes the picture's. A stored output has them.
            advance: told the share done, 0..1.

        Raises:
            RelumeError: the size asked for cannot be, memory does not suffice, or the model fails; or a cube
                comes to a model of pictures or of another number of bands, or a picture to one of cubes.
        """
        wishes = wishes or Wishes()
        self._refuse_other_kind(picture)
        bits = bits or picture.bits
        height, width = self.size(picture.height, picture.width, wishes.target)
        scales = self.chain((picture.height, picture.width), wishes)
        notes = self._notes(picture, wishes, scales)
        bands = picture.channels + picture.transparent
        room = room_for(wishes)
        output: Tensor | Canvas
        if isinstance(picture, Picture):
            output = torch.empty(bands, height, width)
            room -= output.nbytes
        else:
            size = canvas_bytes(height, width, bands, bits)
            folder = wishes.folder if size > room // 4 else None
            room -= 0 if folder else size
            output = Canvas.empty(height, width, bands, bits, folder=folder)
        try:
            decibels = self._fill(picture, output, (height, width), scales, wishes, room, bits, advance)
        except BaseException:
            if isinstance(output, Canvas):
                output.close()
            raise
        made: Picture | StoredPicture
        if isinstance(picture, Picture):
            assert isinstance(output, Tensor)
            alpha = output[picture.channels :] if picture.transparent else None
            made = picture.replace(pixels=output[: picture.channels], alpha=alpha)
        else:
            assert isinstance(output, Canvas)
            made = picture.replace(canvas=output)
        return Result(made, decibels, notes, tuple(self._named(scale) for scale in scales))

    def run(
        self, low: Tensor, *, tile: int = WHOLE, advance: Callable[[float], None] | None = None
    ) -> Tensor:
        """Run the model on a batch `B C H W` with values 0..1; gives `B C sH sW` on the CPU, not clamped.

        The batch is of pictures, gray or RGB, whatever the model takes. A model of unbounded reach runs
        whole, whatever the tile.
        """
        operator = fitted(self.engine, low.shape[1], luma=self.contract.luma)
        halo = operator.halo
        if tile == WHOLE or halo is None:
            tile = max(low.shape[-2:])
        return run_tiled(operator, low, scale=self.scale, tile=tile, halo=halo or 0, advance=advance)

    def size(self, height: int, width: int, target: Target | None) -> tuple[int, int]:
        """Return the output's height and width for an input's.

        Raises:
            RelumeError: the target cannot be.
        """
        return (height * self.scale, width * self.scale) if target is None else target.size(height, width)

    def chain(self, size: tuple[int, int], wishes: Wishes) -> tuple[int, ...]:
        """Return the scales of the models that an input of that size runs through."""
        if wishes.target is None:
            return (self.scale,)
        return steps(size, wishes.target.size(*size), self.scales)

    def operator(self, scales: tuple[int, ...], wishes: Wishes) -> Operator:
        """Return what turns the input into a picture `prod(scales)` times as large."""
        operator: Operator | None = None
        for scale in scales:
            engine: Operator = self._engine(scale)
            if self.engine.place.precision != "fp32":
                engine = Guarded(engine, self._networks[scale], self.engine.place, say=self._say)
            if wishes.ensemble:
                engine = Ensemble(engine)
            operator = Chain(operator, engine) if operator else engine
        assert operator is not None
        return operator

    def _refuse_other_kind(self, picture: Picture | StoredPicture) -> None:
        contract, bands = self.contract, picture.channels
        if contract.of_cubes and picture.cube is None:
            raise RelumeError(f"{self.name} takes cubes of {contract.channels} bands, and this is a picture")
        if picture.cube is not None and (bands != contract.channels or not contract.of_cubes):
            wanted = f"cubes of {contract.channels}" if contract.of_cubes else "pictures"
            raise RelumeError(
                f"a cube of {bands} bands does not fit {self.name}, which takes {wanted}; "
                f"name a model of {bands} bands (relume train makes one)"
            )

    def _named(self, scale: int) -> str:
        return self.name if scale == self.scale else self._relatives[scale].name

    def _engine(self, scale: int) -> Engine:
        if scale not in self._engines:
            network = self._networks[scale] = self._relatives[scale].load()
            self._engines[scale] = make_ready(
                network, engine=self.engine.name, place=self.engine.place, say=self._say
            )
        return self._engines[scale]

    def _notes(
        self, picture: Picture | StoredPicture, wishes: Wishes, scales: tuple[int, ...]
    ) -> tuple[str, ...]:
        notes = []
        if wishes.target and (note := wishes.target.note(picture.height, picture.width)):
            notes.append(note)
        if not scales:
            notes.append("The size asked for is no larger than the picture, so it was only resampled.")
            if wishes.faithful or wishes.ensemble:
                notes.append("No model ran, so there was nothing to average or to correct.")
        return tuple(notes)

    def _fill(
        self, picture: Picture | StoredPicture, output: Tensor | Canvas, size: tuple[int, int],
        scales: tuple[int, ...], wishes: Wishes, room: int, bits: int,
        advance: Callable[[float], None] | None,
    ) -> float:  # fmt: skip
        """Make the output strip by strip; return the consistency."""
        source = Source(picture)
        colours = picture.channels
        shape = (source.bands, picture.height, picture.width)
        corrected = None
        if wishes.faithful and scales:
            corrected = Corrected(source.rows, shape, height=size[0], width=size[1])
        enlarged = (picture.height * math.prod(scales), picture.width * math.prod(scales))
        resampler = None
        if enlarged != size:
            resampler = RowResampler(
                height_in=enlarged[0], width_in=enlarged[1], height_out=size[0], width_out=size[1],
                channels=source.bands,
            )  # fmt: skip
        compared = Consistency(
            source.colour, (colours, picture.height, picture.width), height=size[0], width=size[1], bits=bits
        )
        top = 0
        for strip in self._strips(source, scales, wishes, room, advance):
            # A sum tells of a single NaN or infinity, in a third of the time that looking at each takes.
            if not math.isfinite(strip.sum().item()):
                raise RelumeError(
                    f"{self.name} gave values that are no numbers; its weights may be damaged, take others"
                )
            # A row of tiles may be a large strip, and what follows would hold it several times over.
            for part in strip.split(max(1, _AT_ONCE // strip[:, 0].nbytes), 1):
                # What is resampled overshoots again, so it is clamped after, not only before.
                rows = part.clamp_(0, 1)
                if resampler:
                    rows = resampler.push(rows).clamp_(0, 1)
                if corrected:
                    rows = corrected.push(rows)
                if isinstance(output, Canvas):
                    output.put(top, rows)
                else:
                    output[:, top : top + rows.shape[1]] = rows
                compared.push(rows[:colours])
                top += rows.shape[1]
        return compared.decibels

    def _strips(
        self, source: Source, scales: tuple[int, ...], wishes: Wishes, room: int,
        advance: Callable[[float], None] | None,
    ) -> Iterator[Tensor]:  # fmt: skip
        """Yield strips of all bands, at the models' scale, from top to bottom."""
        if not scales:
            yield from source.unchanged(advance)
            return
        operator = self.operator(scales, wishes)
        flat = source.flat_alpha()
        planes = 1 if flat is not None or not source.transparent else 2
        luma = self.contract.luma
        passes = [(fitted(operator, source.colours, luma=luma), source.colour_window)]
        if planes == 2:
            passes.append((fitted(operator, 1, luma=luma), source.alpha_window))
        tile = self._tile(source, operator, scales, wishes, room // planes)
        shares = [0.0] * planes

        def told(index: int) -> Callable[[float], None]:
            def tell(done: float) -> None:
                shares[index] = done
                if advance:
                    advance(sum(shares) / planes)

            return tell

        streams = [
            self._plane_strips(each, window, source.height, source.width, tile, told(index))
            for index, (each, window) in enumerate(passes)
        ]
        for parts in zip(*streams, strict=True):
            colour = parts[0]
            if not source.transparent:
                yield colour
                continue
            alpha = parts[1] if flat is None else colour.new_full((1, *colour.shape[1:]), flat)
            yield torch.cat([colour, alpha])

    def _plane_strips(
        self, operator: Operator, window: Callable[[int, int, int, int], Tensor], height: int, width: int,
        tile: int | None, advance: Callable[[float], None],
    ) -> Iterator[Tensor]:  # fmt: skip
        """Yield one plane's or one colour's strips `C sh' sW`; a tile of None streams."""
        if tile is None:
            assert isinstance(operator, Streaming)
            stream = operator.stream(height, width)
            for top in range(0, height, stream.strip):
                bottom = min(height, top + stream.strip)
                try:
                    made = stream.push(window(top, bottom, 0, width)[0])
                except MemoryError as error:
                    raise RelumeError(
                        f"memory does not suffice for strips of {width} pixels; choose a --tile"
                    ) from error
                yield made
                advance(bottom / height)
            return
        if operator.halo is None:
            whole = window(0, height, 0, width)
            overlap = min(OVERLAP, tile // 3)
            for strip in blended_strips(
                operator, whole, scale=operator.scale, tile=tile, overlap=overlap, advance=advance,
                say=self._say,
            ):  # fmt: skip
                yield strip[0]
            return
        cutter = Tiler(
            operator, scale=operator.scale, tile=tile, halo=operator.halo, advance=advance, say=self._say
        )
        for strip in cutter.strips(window, height, width):
            yield strip[0]

    def _tile(
        self, source: Source, operator: Operator, scales: tuple[int, ...], wishes: Wishes, room: int
    ) -> int | None:
        """Return the side of the tiles; None where the operator streams.

        Raises:
            RelumeError: memory does not suffice.
        """
        if wishes.tile is not None and not wishes.strict:
            return wishes.tile or max(source.height, source.width)
        adapted = fitted(operator, source.colours, luma=self.contract.luma)
        if (
            wishes.tile is None
            and isinstance(adapted, Streaming)
            and adapted.stream_bytes(source.width) <= room
        ):
            return None

        def measured() -> float | None:
            key = (scales, wishes.ensemble, source.colours)
            if key not in self._footprints:
                self._footprints[key] = measured_bytes_per_pixel(adapted, source.colours)
            return self._footprints[key]

        frame = Frame(
            height=source.height, width=source.width,
            halo=OVERLAP if adapted.halo is None else adapted.halo,
            # The strip, and what of it is put together with alpha.
            strip=4 * source.bands * operator.scale**2 * (1 + source.transparent),
            device=self.engine.place.device,
        )  # fmt: skip
        least = self._bytes_per_pixel(source.colours, scales, wishes)
        side, costs = tile_side(frame, wishes, room, least=least, measured=measured)
        if costs and self._say:
            self._say(costs)
        return side

    def _bytes_per_pixel(self, colours: int, scales: tuple[int, ...], wishes: Wishes) -> float:
        """Return what PyTorch's tensors take for each input pixel of a tile."""
        total, before = 0.0, 1
        for scale in scales:
            self._engine(scale)
            total = max(total, bytes_per_pixel(self._networks[scale]) * before**2)
            before *= scale
        planes = self.contract.channels * (1 + 2 * wishes.ensemble)
        if self.contract.luma and colours > 1:
            planes += COLOUR_PLANES
        return total + 4 * planes * before**2
