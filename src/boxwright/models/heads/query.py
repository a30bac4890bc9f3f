# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The query head of RT-DETR: the best cells of all levels become queries, a decoder turns them into objects.

Names of the parts, for importers (published v8-style name, where it differs from the original):

    project.<level>.{conv,bn}          input_proj.<level>.{0,1}; original {conv,norm}
    encode.{0,1}                       enc_output.{0,1}
    proposal_class, proposal_box       enc_score_head, enc_bbox_head
    label_embedding                    denoising_class_embed; original with one more row (`padding_row`)
    decoder.position                   query_pos_head
    decoder.layers.<i>.attention       decoder.layers.<i>.self_attn: qkv = in_proj, output = out_proj
    decoder.layers.<i>.cross           decoder.layers.<i>.cross_attn: offsets = sampling_offsets,
                                       weights = attention_weights, value = value_proj, output = output_proj
    decoder.layers.<i>.{expand,reduce} decoder.layers.<i>.{linear1,linear2}; norm1, norm2, norm3 are the same
    decoder.classes.<i>                dec_score_head.<i>
    decoder.boxes.<i>                  dec_bbox_head.<i>; the MLPs are layers.<j> everywhere

Source: RT-DETR, Zhao et al. 2023, arXiv:2304.08069; spec/architectures 6.7; class prior: RetinaNet, Lin et al. 2017,
arXiv:1708.02002.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.config import component
from boxwright.errors import ConfigError
from boxwright.models.blocks import Conv
from boxwright.models.deformable import full_precision
from boxwright.models.heads.branches import join_levels
from boxwright.models.heads.decoder import LayerOutput, QueryDecoder
from boxwright.models.network import ClassLayout
from boxwright.models.norms import NormName, set_norms
from boxwright.models.transformer import MLP
from boxwright.ops.decode import Normalized
from boxwright.ops.denoising import Denoising, DenoisingQueries
from boxwright.structures import Grid, Outputs, Predictions, Targets, at_least_float32
from boxwright.vocabulary import AttributeSpec

CLASS_BIAS = -math.log(99)  # every class starts at a score of 0.01, whatever their number
FIRST_SIZE = 0.05  # share of the image: side of the first boxes of the finest level; doubles from level to level
VALID = (0.01, 0.99)  # a cell may become a query when all numbers of its first box lie between


class Query(nn.Module):
    """Chooses queries among all cells, adds noised copies of the objects where there are targets, and decodes both."""

    def __init__(self, config: "QueryConfig", channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        width, classes = config.width, config.num_classes
        self.project = nn.ModuleList(Conv(inputs, width, act="none") for inputs in channels)
        self.encode = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))
        self.proposal_class = nn.Linear(width, classes)
        self.proposal_box = MLP((width, width, width, 4))
        self.label_embedding: nn.Embedding | None = nn.Embedding(classes + config.padding_row, width)
        self.decoder = QueryDecoder(
            layers=config.layers,
            width=width,
            heads=config.heads,
            levels=len(channels),
            points=config.points,
            hidden=config.hidden,
            num_classes=classes,
            attribute_values=sum(len(spec.values) for spec in config.attributes),
        )
        self.config = config
        self.evaluated = (config.evaluated or config.layers) - 1
        self.strides = tuple(strides)
        set_norms(self.project, config.norm)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Class priors; boxes that stay where they are."""
        nn.init.xavier_uniform_(self.encode.get_parameter("0.weight"))
        for head in (self.proposal_class, *self.decoder.classes):
            nn.init.constant_(head.get_parameter("bias"), CLASS_BIAS)
        for box in (self.proposal_box, *self.decoder.boxes):
            nn.init.zeros_(box.get_parameter("layers.2.weight"))
            nn.init.zeros_(box.get_parameter("layers.2.bias"))

    @property
    def class_rows(self) -> Mapping[str, ClassLayout]:
        """The tensors whose first axis counts classes, and where they stand, for transfer between class lists."""
        heads = ("proposal_class", *(f"decoder.classes.{index}" for index in self.decoder.read))
        rows = dict.fromkeys((f"{head}.{kind}" for head in heads for kind in ("weight", "bias")), ClassLayout())
        if self.label_embedding is not None:
            rows["label_embedding.weight"] = ClassLayout(after=int(self.config.padding_row))
        return rows

    def grid(self, image_size: tuple[int, int], device: torch.device | str | None = None) -> Grid | None:
        """None: queries are no cells."""
        return None

    def without_auxiliary(self) -> "Query":
        """This head, in place, with what the layer that inference reads needs; targets are no longer read."""
        self.decoder.keep_only(self.evaluated)
        self.label_embedding = None
        return self

    def forward(
        self, maps: tuple[Float[Tensor, "B _ _ _"], ...], image_size: tuple[int, int], targets: Targets | None = None
    ) -> Outputs:
        """Raw predictions of all queries of an image of (height, width) pixels.

        Targets add denoising queries, which no other query sees. Unprepared ones (`Criterion.prepare`) cost a host
        sync.
        """
        image_size = (int(image_size[0]), int(image_size[1]))  # a tracer's sizes: tables are of one size anyway
        projected = [project(x) for project, x in zip(self.project, maps, strict=True)]
        shapes = tuple((int(x.shape[2]), int(x.shape[3])) for x in projected)
        memory = join_levels(projected)
        proposals, content, box_logits = self._propose(memory, shapes)
        encoder = self._predictions(LayerOutput(0, *proposals, None), "encoder", image_size)
        noisy, blocked, first = None, None, 0
        if targets is not None and self.label_embedding is not None:
            noisy = self.config.denoising(targets, image_size, self.config.num_classes, int(content.shape[1]))
            content = torch.cat((self._embedded(noisy).to(content.dtype), content), dim=1)
            box_logits = torch.cat((noisy.box_logits.to(box_logits.dtype), box_logits), dim=1)
            blocked, first = noisy.blocked, noisy.labels.shape[1]
        layers = self.decoder(content, box_logits, memory, shapes, blocked)
        matching = [self._predictions(_rows(layer, slice(first, None)), "decoder", image_size) for layer in layers]
        final = next(preds for preds in matching if preds.layer == self.evaluated)
        if self.label_embedding is None:
            return Outputs(final)
        auxiliary = [encoder, *(preds for preds in matching if preds is not final)]
        if noisy is not None:
            auxiliary += [
                self._predictions(_rows(layer, slice(first)), "denoise", image_size, noisy) for layer in layers
            ]
        return Outputs(final, tuple(auxiliary))

    def _propose(
        self, memory: Tensor, shapes: tuple[tuple[int, int], ...]
    ) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
        """Logits and boxes of the chosen cells, and their contents and box logits as constants to the decoder."""
        anchors, valid = _anchors(shapes, memory)
        features = at_least_float32(self.encode(memory * valid.to(memory.dtype)))
        with full_precision(features):
            logits = self.proposal_class(features)
        count = min(self.config.queries, logits.shape[1])
        chosen = logits.detach().amax(-1).topk(count, dim=1).indices
        content = features.gather(1, chosen[..., None].expand(-1, -1, features.shape[-1]))
        with full_precision(features):
            box_logits = self.proposal_box(content) + anchors.to(features.dtype)[chosen]
        best = logits.gather(1, chosen[..., None].expand(-1, -1, logits.shape[-1]))
        return (best, box_logits.sigmoid()), content.detach(), box_logits.detach()

    def _embedded(self, noisy: DenoisingQueries) -> Tensor:
        """(B, S, d): the label's embedding, zero in empty slots.

        Without any slot it is an empty tensor that keeps the embedding in the graph, so that ranks agree on which
        parameters have gradients.
        """
        assert self.label_embedding is not None
        held = (noisy.labels >= 0)[..., None]
        return self.label_embedding(noisy.labels.clamp(min=0)) * held  # type: ignore[no-any-return]

    def _predictions(
        self, of: LayerOutput, role: str, image_size: tuple[int, int], noisy: DenoisingQueries | None = None
    ) -> Predictions:
        return Predictions(
            logits=of.logits,
            box_raw=of.boxes,
            decoder=Normalized(),
            role=role,
            layer=of.layer,
            input_size=image_size,
            exclusive=self.config.exclusive,
            attribute_logits=self._split(of.attributes),
            known=None if noisy is None else noisy.known,
        )

    def _split(self, values: Tensor | None) -> Mapping[str, Tensor] | None:
        """By name what an attribute head says about all attributes."""
        if values is None:
            return None
        specs = self.config.attributes
        parts = torch.split(values, [len(spec.values) for spec in specs], dim=-1)
        return {spec.name: part for spec, part in zip(specs, parts, strict=True)}


@component
class QueryConfig:
    """How many classes, queries and decoder layers, how wide they are, and how training queries are made."""

    kind: Literal["query"] = "query"
    num_classes: int = 80
    queries: int = 300  # at most; small images have fewer cells
    layers: int = 6  # of the decoder
    evaluated: int | None = None  # decoder layer that inference reads, from 1; None: the last
    width: int = 256
    heads: int = 8
    points: int = 4  # that a head reads from every level
    hidden: int = 1024  # inner width of a decoder layer's linear layers
    denoising: Denoising = Denoising()
    padding_row: bool = False  # the original's embedding has one more row, for empty slots; nothing reads it
    exclusive: bool = False  # classes exclude one another: scores by softmax, in the loss as in decoding
    attributes: tuple[AttributeSpec, ...] = ()
    norm: NormName = "torch"

    def __post_init__(self) -> None:
        for name in ("num_classes", "queries", "layers", "points", "heads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.head.{name}: expected at least 1, got {getattr(self, name)}")
        if self.width % self.heads:
            raise ConfigError(f"model.head.width: expected a multiple of {self.heads} heads, got {self.width}")
        if self.evaluated is not None and not 1 <= self.evaluated <= self.layers:
            raise ConfigError(f"model.head.evaluated: expected a layer from 1 to {self.layers}, got {self.evaluated}")

    def build(self, channels: Sequence[int], strides: Sequence[int]) -> Query:
        """The module with fresh weights for maps with these channels and strides."""
        return Query(self, channels, strides)


def first_boxes(
    shapes: Sequence[tuple[int, int]],
) -> tuple[Float[Tensor, "A 4"], Bool[Tensor, "A 1"]]:
    """Logits of the first box (cx, cy, w, h) of every cell, and whether the cell may become a query.

    Logits of those that may not are infinite.
    """
    boxes = []
    for level, (height, columns) in enumerate(shapes):
        y, x = torch.meshgrid(
            (torch.arange(height, dtype=torch.float64) + 0.5) / height,
            (torch.arange(columns, dtype=torch.float64) + 0.5) / columns,
            indexing="ij",
        )
        side = torch.full_like(x, FIRST_SIZE * 2**level)
        boxes.append(torch.stack((x, y, side, side), dim=-1).flatten(0, 1))
    every = torch.cat(boxes)
    valid = ((every > VALID[0]) & (every < VALID[1])).all(dim=-1, keepdim=True)
    return (every / (1 - every)).log().masked_fill(~valid, math.inf), valid


def _rows(of: LayerOutput, rows: slice) -> LayerOutput:
    attributes = None if of.attributes is None else of.attributes[:, rows]
    return LayerOutput(of.layer, of.logits[:, rows], of.boxes[:, rows], attributes)


def _anchors(shapes: tuple[tuple[int, int], ...], like: Tensor) -> tuple[Tensor, Tensor]:
    if type(like) is not Tensor:  # traced or fake tensors must not meet a table kept from another call
        anchors, valid = first_boxes(shapes)
        return anchors.to(like.device), valid.to(like.device)
    return _kept_anchors(shapes, like.device, torch.float64 if like.dtype == torch.float64 else torch.float32)


@lru_cache(maxsize=64)  # 150 kB each at 640 px
def _kept_anchors(
    shapes: tuple[tuple[int, int], ...], device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):  # the next caller may be a training step
        anchors, valid = first_boxes(shapes)
        return anchors.to(device, dtype), valid.to(device)
