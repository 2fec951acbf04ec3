"""The image encoders of SAM 2.1, SAM and MobileSAM, one window and one head at a time.

Weights are a dict under the authors' names, so that a twin tests the renaming as well.
"""

import torch
from torch.nn import functional as F


def random_weights(shapes, seed=0):
    """Weights of given shapes: all matter, none is alike."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        value = torch.empty(shape)
        if name.endswith("num_batches_tracked"):
            value = torch.zeros((), dtype=torch.int64)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 2, generator=generator)
        elif len(shape) > 1 and name.endswith("weight"):
            value.normal_(0, value[0].numel() ** -0.5, generator=generator)
        elif name.endswith("weight"):
            value.uniform_(0.5, 1.5, generator=generator)
        else:
            value.normal_(0, 0.3, generator=generator)
        weights[name] = value
    return weights


def linear_shapes(name, inputs, outputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm_shapes(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def linear(weights, name, places):
    return F.linear(places, weights[f"{name}.weight"], weights[f"{name}.bias"])


def norm(weights, name, places, eps=1e-6):
    """Layer normalisation of (..., C)."""
    centred = places - places.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def neck(weights, name, places):
    """(Y, X, C) to (1, 256, Y, X): 1x1, normalisation, 3x3, normalisation."""
    features = F.conv2d(places.permute(2, 0, 1)[None], weights[f"{name}.0.weight"])
    features = norm(weights, f"{name}.1", features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    features = F.conv2d(features, weights[f"{name}.2.weight"], padding=1)
    return norm(weights, f"{name}.3", features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def in_windows(places, window, attend, shrink=1):
    """What ``attend`` makes of every window of (Y, X, C); zeros beyond the section."""
    height, length, _ = places.shape
    if not window:
        return attend(places)
    rows = []
    for top in range(0, height, window):
        row = []
        for left in range(0, length, window):
            piece = places[top : top + window, left : left + window]
            whole = places.new_zeros(window, window, places.shape[2])
            whole[: piece.shape[0], : piece.shape[1]] = piece
            row.append(attend(whole))
        rows.append(torch.cat(row, 1))
    return torch.cat(rows, 0)[: height // shrink, : length // shrink]


def pooled(places):
    """Maximum of every 2 x 2 places of (Y, X, C)."""
    return torch.stack([places[y::2, x::2] for y in (0, 1) for x in (0, 1)]).amax(0)


def hiera_shapes(width, heads, blocks, windows, global_blocks, background, channels=256):
    trunk = "image_encoder.trunk"
    shapes = {
        f"{trunk}.patch_embed.proj.weight": (width, 3, 7, 7),
        f"{trunk}.patch_embed.proj.bias": (width,),
        f"{trunk}.pos_embed": (1, width, background, background),
        f"{trunk}.pos_embed_window": (1, width, windows[0], windows[0]),
    }
    index, before = 0, width
    for stage, count in enumerate(blocks):
        here = width * 2**stage
        for _ in range(count):
            name = f"{trunk}.blocks.{index}"
            shapes |= norm_shapes(f"{name}.norm1", before) | norm_shapes(f"{name}.norm2", here)
            shapes |= linear_shapes(f"{name}.attn.qkv", before, 3 * here)
            shapes |= linear_shapes(f"{name}.attn.proj", here, here)
            shapes |= linear_shapes(f"{name}.mlp.layers.0", here, 4 * here)
            shapes |= linear_shapes(f"{name}.mlp.layers.1", 4 * here, here)
            if before != here:
                shapes |= linear_shapes(f"{name}.proj", before, here)
            before, index = here, index + 1
    for level in range(4):
        name = f"image_encoder.neck.convs.{level}.conv"
        shapes[f"{name}.weight"] = (channels, width * 2 ** (3 - level), 1, 1)
        shapes[f"{name}.bias"] = (channels,)
    return shapes


def hiera_attention(weights, name, heads, pool):
    def attend(places):
        mixed = linear(weights, f"{name}.qkv", places)
        query, key, value = mixed.chunk(3, -1)
        if pool:
            query = pooled(query)
        height, length, width = query.shape
        answers = []
        for q, k, v in zip(*(p.chunk(heads, -1) for p in (query, key, value)), strict=True):
            q, k, v = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
            answers.append((q @ k.T / q.shape[1] ** 0.5).softmax(1) @ v)
        return linear(weights, f"{name}.proj", torch.cat(answers, 1).view(height, length, width))

    return attend


def hiera(weights, section, width, heads, blocks, windows, global_blocks, background):
    """Features of one section, (1, 256, Y / 16, X / 16)."""
    trunk = "image_encoder.trunk"
    patch = f"{trunk}.patch_embed.proj"
    colours = section.expand(1, 3, -1, -1)
    embedded = F.conv2d(
        colours, weights[f"{patch}.weight"], weights[f"{patch}.bias"], stride=4, padding=3
    )
    positions = F.interpolate(
        weights[f"{trunk}.pos_embed"], embedded.shape[2:], mode="bicubic", align_corners=False
    )
    tile = weights[f"{trunk}.pos_embed_window"]
    for y in range(embedded.shape[2]):
        for x in range(embedded.shape[3]):
            positions[:, :, y, x] += tile[:, :, y % windows[0], x % windows[0]]
    places = (embedded + positions)[0].permute(1, 2, 0)
    index, levels = 0, []
    for stage, count in enumerate(blocks):
        for step in range(count):
            name, pool = f"{trunk}.blocks.{index}", stage > 0 and step == 0
            window = windows[stage - 1] if pool else windows[stage]
            window = 0 if index in global_blocks else window
            inner = norm(weights, f"{name}.norm1", places)
            if pool:
                places = pooled(linear(weights, f"{name}.proj", inner))
            attend = hiera_attention(weights, f"{name}.attn", heads * 2**stage, pool)
            places = places + in_windows(inner, window, attend, 2 if pool else 1)
            inner = linear(weights, f"{name}.mlp.layers.0", norm(weights, f"{name}.norm2", places))
            places = places + linear(weights, f"{name}.mlp.layers.1", F.gelu(inner))
            index += 1
        levels.append(places.permute(2, 0, 1)[None])
    lateral = [
        F.conv2d(levels[3 - level], *(weights[f"image_encoder.neck.convs.{level}.conv.{part}"]
                                      for part in ("weight", "bias")))
        for level in (0, 1)
    ]  # fmt: skip
    return lateral[1] + lateral[0].repeat_interleave(2, 2).repeat_interleave(2, 3)


def vit_shapes(width, heads, blocks, window, side, global_blocks, channels=256):
    shapes = {
        "image_encoder.pos_embed": (1, side, side, width),
        "image_encoder.patch_embed.proj.weight": (width, 3, 16, 16),
        "image_encoder.patch_embed.proj.bias": (width,),
        "image_encoder.neck.0.weight": (channels, width, 1, 1),
        "image_encoder.neck.2.weight": (channels, channels, 3, 3),
    }
    shapes |= norm_shapes("image_encoder.neck.1", channels)
    shapes |= norm_shapes("image_encoder.neck.3", channels)
    for index in range(blocks):
        name = f"image_encoder.blocks.{index}"
        reach = 2 * (side if index in global_blocks else window) - 1
        shapes |= norm_shapes(f"{name}.norm1", width) | norm_shapes(f"{name}.norm2", width)
        shapes |= linear_shapes(f"{name}.attn.qkv", width, 3 * width)
        shapes |= linear_shapes(f"{name}.attn.proj", width, width)
        shapes |= linear_shapes(f"{name}.mlp.lin1", width, 4 * width)
        shapes |= linear_shapes(f"{name}.mlp.lin2", 4 * width, width)
        shapes |= {f"{name}.attn.rel_pos_{axis}": (reach, width // heads) for axis in "hw"}
    return shapes


def distances(table, length):
    """Row ``[i, j]`` is the embedding of how far place ``i`` is behind place ``j``."""
    stretched = table
    if len(table) != 2 * length - 1:
        stretched = F.interpolate(table.T[None], 2 * length - 1, mode="linear")[0].T
    at = torch.arange(length)
    return stretched[at[:, None] - at[None] + length - 1]


def vit_attention(weights, name, heads):
    def attend(places):
        height, length, _ = places.shape
        mixed = linear(weights, f"{name}.qkv", places)
        rows = distances(weights[f"{name}.rel_pos_h"], height)
        columns = distances(weights[f"{name}.rel_pos_w"], length)
        answers = []
        for q, k, v in zip(*(p.chunk(heads, -1) for p in mixed.chunk(3, -1)), strict=True):
            scores = torch.einsum("yxc,uvc->yxuv", q, k) / q.shape[-1] ** 0.5
            scores = scores + torch.einsum("yxc,yuc->yxu", q, rows)[..., None]
            scores = scores + torch.einsum("yxc,xvc->yxv", q, columns)[:, :, None]
            share = scores.flatten(2).softmax(-1)
            answers.append(share @ v.flatten(0, 1))
        return linear(weights, f"{name}.proj", torch.cat(answers, -1))

    return attend


def vit(weights, section, width, heads, blocks, window, side, global_blocks):
    """Features of one section, (1, 256, Y / 16, X / 16)."""
    patch = "image_encoder.patch_embed.proj"
    embedded = F.conv2d(
        section.expand(1, 3, -1, -1), weights[f"{patch}.weight"], weights[f"{patch}.bias"], 16
    )
    positions = weights["image_encoder.pos_embed"].permute(0, 3, 1, 2)
    positions = F.interpolate(positions, embedded.shape[2:], mode="bicubic", align_corners=False)
    places = (embedded + positions)[0].permute(1, 2, 0)
    for index in range(blocks):
        name = f"image_encoder.blocks.{index}"
        inner = norm(weights, f"{name}.norm1", places)
        attend = vit_attention(weights, f"{name}.attn", heads)
        places = places + in_windows(inner, 0 if index in global_blocks else window, attend)
        inner = linear(weights, f"{name}.mlp.lin1", norm(weights, f"{name}.norm2", places))
        places = places + linear(weights, f"{name}.mlp.lin2", F.gelu(inner))
    return neck(weights, "image_encoder.neck", places)


def conv_norm_shapes(name, inputs, outputs, size=1):
    shapes = {
        f"{name}.c.weight": (outputs, inputs, size, size),
        f"{name}.bn.num_batches_tracked": (),
    }
    shapes |= norm_shapes(f"{name}.bn", outputs)
    return shapes | {f"{name}.bn.running_{part}": (outputs,) for part in ("mean", "var")}


def tiny_vit_shapes(widths, blocks, heads, windows, channels=256):
    first = widths[0]
    shapes = conv_norm_shapes("image_encoder.patch_embed.seq.0", 3, first // 2, 3)
    shapes |= conv_norm_shapes("image_encoder.patch_embed.seq.2", first // 2, first, 3)
    for level, width in enumerate(widths):
        for index in range(blocks[level]):
            name = f"image_encoder.layers.{level}.blocks.{index}"
            if level == 0:
                shapes |= conv_norm_shapes(f"{name}.conv1", width, 4 * width)
                shapes |= conv_norm_shapes(f"{name}.conv2", 1, 4 * width, 3)
                shapes |= conv_norm_shapes(f"{name}.conv3", 4 * width, width)
                continue
            shapes |= norm_shapes(f"{name}.attn.norm", width)
            shapes |= linear_shapes(f"{name}.attn.qkv", width, 3 * width)
            shapes |= linear_shapes(f"{name}.attn.proj", width, width)
            shapes[f"{name}.attn.attention_biases"] = (heads[level], windows[level] ** 2)
            shapes |= norm_shapes(f"{name}.mlp.norm", width)
            shapes |= linear_shapes(f"{name}.mlp.fc1", width, 4 * width)
            shapes |= linear_shapes(f"{name}.mlp.fc2", 4 * width, width)
            shapes |= conv_norm_shapes(f"{name}.local_conv", 1, width, 3)
        if level < len(widths) - 1:
            name, wider = f"image_encoder.layers.{level}.downsample", widths[level + 1]
            shapes |= conv_norm_shapes(f"{name}.conv1", width, wider)
            shapes |= conv_norm_shapes(f"{name}.conv2", 1, wider, 3)
            shapes |= conv_norm_shapes(f"{name}.conv3", wider, wider)
    shapes |= norm_shapes("image_encoder.norm_head", widths[-1])
    shapes |= linear_shapes("image_encoder.head", widths[-1], 5)
    shapes["image_encoder.neck.0.weight"] = (channels, widths[-1], 1, 1)
    shapes["image_encoder.neck.2.weight"] = (channels, channels, 3, 3)
    shapes |= norm_shapes("image_encoder.neck.1", channels)
    return shapes | norm_shapes("image_encoder.neck.3", channels)


def conv_norm(weights, name, features, stride=1, each=False):
    """Convolution, then batch normalisation with the batch's statistics of training."""
    kernel = weights[f"{name}.c.weight"]
    pad, groups = kernel.shape[2] // 2, len(kernel) if each else 1
    features = F.conv2d(features, kernel, None, stride, pad, groups=groups)
    mean, variance, scale, shift = (
        weights[f"{name}.bn.{part}"][:, None, None]
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (features - mean) / (variance + 1e-5).sqrt() * scale + shift


def tiny_attention(weights, name, heads, window):
    def attend(places):
        width = places.shape[2]
        mixed = linear(weights, f"{name}.qkv", norm(weights, f"{name}.norm", places, 1e-5))
        answers = []
        for head, own in enumerate(mixed.flatten(0, 1).chunk(heads, 1)):
            query, key, value = own.chunk(3, 1)
            scores = query @ key.T / (width // heads) ** 0.5
            for i in range(window**2):
                for j in range(window**2):
                    dy, dx = abs(i // window - j // window), abs(i % window - j % window)
                    scores[i, j] += weights[f"{name}.attention_biases"][head, dy * window + dx]
            answers.append(scores.softmax(1) @ value)
        return linear(weights, f"{name}.proj", torch.cat(answers, 1).view(places.shape))

    return attend


def tiny_vit(weights, section, widths, blocks, heads, windows):
    """Features of one section, (1, 256, Y / 16, X / 16)."""
    patch = "image_encoder.patch_embed.seq"
    features = F.gelu(conv_norm(weights, f"{patch}.0", section.expand(1, 3, -1, -1), 2))
    features = conv_norm(weights, f"{patch}.2", features, 2)
    for level in range(len(widths)):
        for index in range(blocks[level]):
            name = f"image_encoder.layers.{level}.blocks.{index}"
            if level == 0:
                inner = F.gelu(conv_norm(weights, f"{name}.conv1", features))
                inner = F.gelu(conv_norm(weights, f"{name}.conv2", inner, each=True))
                features = F.gelu(features + conv_norm(weights, f"{name}.conv3", inner))
                continue
            attend = tiny_attention(weights, f"{name}.attn", heads[level], windows[level])
            places = features[0].permute(1, 2, 0)
            places = places + in_windows(places, windows[level], attend)
            features = places.permute(2, 0, 1)[None]
            features = conv_norm(weights, f"{name}.local_conv", features, each=True)
            places = features[0].permute(1, 2, 0)
            inner = linear(
                weights, f"{name}.mlp.fc1", norm(weights, f"{name}.mlp.norm", places, 1e-5)
            )
            places = places + linear(weights, f"{name}.mlp.fc2", F.gelu(inner))
            features = places.permute(2, 0, 1)[None]
        if level < len(widths) - 1:
            name = f"image_encoder.layers.{level}.downsample"
            features = F.gelu(conv_norm(weights, f"{name}.conv1", features))
            features = conv_norm(weights, f"{name}.conv2", features, 1 if level == 2 else 2, True)
            features = conv_norm(weights, f"{name}.conv3", F.gelu(features))
    return neck(weights, "image_encoder.neck", features[0].permute(1, 2, 0))
