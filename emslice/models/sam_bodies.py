"""The image encoders of SAM and SAM 2.1, as `transformers` builds them, for sections of any size.

Here too: their published sizes, and what their weights are called in the authors' files and in
those of `transformers`. TinyViT is our own: ``tiny_vit.py``. Reading files is ``sam_weights.py``.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from emslice.errors import ConfigError

HIERA_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"width": 96, "heads": 1, "blocks": [1, 2, 7, 2], "windows": [8, 4, 14, 7],
             "global_blocks": [5, 7, 9], "background": 7},
    "small": {"width": 96, "heads": 1, "blocks": [1, 2, 11, 2], "windows": [8, 4, 14, 7],
              "global_blocks": [7, 10, 13], "background": 7},
    "base_plus": {"width": 112, "heads": 2, "blocks": [2, 3, 16, 3], "windows": [8, 4, 14, 7],
                  "global_blocks": [12, 16, 20], "background": 14},
    "large": {"width": 144, "heads": 2, "blocks": [2, 6, 36, 4], "windows": [8, 4, 16, 8],
              "global_blocks": [23, 33, 43], "background": 7},
}  # fmt: skip
"""SAM 2.1. Width and heads double from stage to stage."""

HIERA_TINY = {"width": 4, "heads": 1, "blocks": [1, 1, 2, 1], "windows": [8, 4, 6, 3],
              "global_blocks": [3], "background": 3}  # fmt: skip

VIT_SIZES: dict[str, dict[str, Any]] = {
    "base": {"width": 768, "heads": 12, "blocks": 12, "window": 14, "side": 64,
             "global_blocks": [2, 5, 8, 11]},
    "large": {"width": 1024, "heads": 16, "blocks": 24, "window": 14, "side": 64,
              "global_blocks": [5, 11, 17, 23]},
    "huge": {"width": 1280, "heads": 16, "blocks": 32, "window": 14, "side": 64,
             "global_blocks": [7, 15, 23, 31]},
}  # fmt: skip
"""``side`` is that of the trained image, in features of 16 x 16 voxels."""

VIT_TINY = {"width": 8, "heads": 2, "blocks": 2, "window": 3, "side": 7, "global_blocks": [1]}


def _transformers(family: str) -> Any:
    """The modules of `transformers` that one family of encoders is in."""
    try:
        return import_module(f"transformers.models.{family}.modeling_{family}")
    except ImportError as error:
        raise ConfigError(
            f"sam.encoder: {family} needs the package transformers, which cannot be imported "
            f'({error}). Install it: pip install "emslice[train]"; or use mobile_sam.'
        ) from error


class Hiera(nn.Module):
    """SAM 2.1: the features that its mask decoder starts from, called ``vision_features`` there."""

    multiple: ClassVar[int] = 32  # the coarsest level is added to the one that is given out

    def __init__(
        self, width: int, heads: int, blocks: list[int], windows: list[int],
        global_blocks: list[int], background: int, channels: int = 256,
    ) -> None:  # fmt: skip
        super().__init__()
        sam2 = _transformers("sam2")
        widths = [width * 2**stage for stage in range(len(blocks))]
        trunk = sam2.Sam2HieraDetConfig(
            hidden_size=width,
            num_attention_heads=heads,
            blocks_per_stage=list(blocks),
            embed_dim_per_stage=widths,
            num_attention_heads_per_stage=[heads * 2**stage for stage in range(len(blocks))],
            window_size_per_stage=list(windows),
            global_attention_blocks=list(global_blocks),
            window_positional_embedding_background_size=[background, background],
        )
        config = sam2.Sam2VisionConfig(
            backbone_config=trunk, backbone_channel_list=widths[::-1], fpn_hidden_size=channels
        )
        self.model = sam2.Sam2VisionModel(config)

    def forward(self, colours: Tensor) -> Tensor:
        """Features, float, shape (B, channels, Y / 16, X / 16)."""
        return self.model(colours).fpn_hidden_states[-1]

    @staticmethod
    def rename(key: str) -> str | None:
        """Name of a weight of the authors or of transformers here; None: not of the encoder."""
        key, n = re.subn(r"^image_encoder\.trunk\.|^(vision_encoder\.)?backbone\.", "trunk.", key)
        if not n:
            key, n = re.subn(r"^(image_encoder\.|vision_encoder\.)?neck\.", "neck.", key)
        if not n:
            return None
        key = key.replace("trunk.patch_embed.proj.", "trunk.patch_embed.projection.")
        key = re.sub(r"^(trunk\.blocks\.\d+)\.norm([12])\.", r"\1.layer_norm\2.", key)
        key = re.sub(r"^(trunk\.blocks\.\d+\.mlp)\.layers\.0\.", r"\1.proj_in.", key)
        key = re.sub(r"^(trunk\.blocks\.\d+\.mlp)\.layers\.1\.", r"\1.proj_out.", key)
        key = re.sub(r"^(neck\.convs\.\d+)\.conv\.", r"\1.", key)
        return "model." + key.replace("trunk.", "backbone.", 1)

    @staticmethod
    def sizes_of(config: dict[str, Any]) -> dict[str, Any]:
        """Our sizes in the ``config.json`` of a folder of transformers."""
        # As an object, because what has its default value need not be in the file.
        trunk = _transformers("sam2").Sam2VisionConfig.from_dict(config).backbone_config
        return {
            "width": trunk.hidden_size,
            "heads": trunk.num_attention_heads_per_stage[0],
            "blocks": list(trunk.blocks_per_stage),
            "windows": list(trunk.window_size_per_stage),
            "global_blocks": list(trunk.global_attention_blocks),
            "background": trunk.window_positional_embedding_background_size[0],
        }


class Vit(nn.Module):
    """SAM: a plain vision transformer; position embeddings are stretched over the section."""

    multiple: ClassVar[int] = 16

    def __init__(
        self, width: int, heads: int, blocks: int, window: int, side: int,
        global_blocks: list[int], channels: int = 256,
    ) -> None:  # fmt: skip
        super().__init__()
        sam = _transformers("sam")
        config = sam.SamVisionConfig(
            hidden_size=width,
            num_attention_heads=heads,
            num_hidden_layers=blocks,
            window_size=window,
            image_size=16 * side,
            global_attn_indexes=list(global_blocks),
            output_channels=channels,
        )
        self.model = sam.SamVisionModel(config).vision_encoder

    def forward(self, colours: Tensor) -> Tensor:
        """Features, float, shape (B, channels, Y / 16, X / 16)."""
        # Not the encoder's own forward, which refuses all sizes but that of the trained image.
        places = self.model.patch_embed.projection(colours).permute(0, 2, 3, 1)
        positions = self.model.pos_embed
        if positions.shape[1:3] != places.shape[1:3]:
            positions = F.interpolate(
                positions.permute(0, 3, 1, 2), places.shape[1:3], mode="bicubic"
            ).permute(0, 2, 3, 1)
        places = places + positions
        for layer in self.model.layers:
            places = layer(places)
        return self.model.neck(places)

    @staticmethod
    def rename(key: str) -> str | None:
        """Name of a weight of the authors or of transformers here; None: not of the encoder."""
        key, n = re.subn(r"^(image_encoder|vision_encoder)\.", "", key)
        if not n:
            return None
        key = key.replace("patch_embed.proj.", "patch_embed.projection.")
        key = re.sub(r"^blocks\.", "layers.", key)
        key = re.sub(r"^(layers\.\d+)\.norm([12])\.", r"\1.layer_norm\2.", key)
        neck = {"0": "conv1", "1": "layer_norm1", "2": "conv2", "3": "layer_norm2"}
        key = re.sub(r"^neck\.([0-3])\.", lambda found: f"neck.{neck[found[1]]}.", key)
        return "model." + key

    @staticmethod
    def sizes_of(config: dict[str, Any]) -> dict[str, Any]:
        """Our sizes in the ``config.json`` of a folder of transformers."""
        vision = _transformers("sam").SamVisionConfig.from_dict(config)
        return {
            "width": vision.hidden_size,
            "heads": vision.num_attention_heads,
            "blocks": vision.num_hidden_layers,
            "window": vision.window_size,
            "side": vision.image_size // 16,
            "global_blocks": list(vision.global_attn_indexes),
        }
