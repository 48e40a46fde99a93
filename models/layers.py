"""The parts of the diffusion transformer (DiT, Peebles & Xie 2023, arXiv 2212.09748).

Weights keep their own type; mixed precision comes from autocast around the forward pass.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.encodings.rope import turn

SINUSOID = 256  # channels of a scalar's code, DiT's `frequency_embedding_size`
TIME_SCALE = 1000.0  # flow time in [0, 1] is coded on the scale of DiT's 1000 steps

Rotation = tuple[Tensor, Tensor]


def sinusoid(values: Tensor, channels: int = SINUSOID) -> Tensor:
    """[cos(v f), sin(v f)] with f_k = 10000^(-k/(channels/2)), cosines first as in DiT.

    Shapes: values [...] -> [..., channels] float32. Two values are told apart from a difference
    of about 1 down to 1/100, so give it pixels or steps, not fractions.
    """
    half = channels // 2
    k = torch.arange(half, dtype=torch.float32, device=values.device)
    phase = values.float()[..., None] * torch.exp(-math.log(10000.0) * k / half)
    return torch.cat((phase.cos(), phase.sin()), dim=-1)  # [..., channels]


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (1 + scale) + shift, per sample: x [B, N, D], shift and scale [B, D] -> [B, N, D]."""
    return torch.addcmul(shift[:, None], x, 1 + scale[:, None])


class TimestepEmbedding(nn.Module):
    """t in [0, 1] -> sinusoid of 1000 t -> MLP -> [B, width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(SINUSOID, width)
        self.outer = nn.Linear(width, width)

    def forward(self, t: Tensor) -> Tensor:
        code = sinusoid(t.float() * TIME_SCALE).to(self.inner.weight.dtype)  # [B, 256]
        return self.outer(F.silu(self.inner(code)))  # [B, D]


class MicroEmbedding(nn.Module):
    """Four scalars about the crop, each a sinusoid, through an MLP whose output starts at zero.

    Our reconstruction of RPE-2D's micro-conditioning after SDXL's (arXiv 2307.01952): codes
    concatenated, embedded and added to the condition. The zero start makes a fresh model equal
    to the one without it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(4 * SINUSOID, width)
        self.outer = nn.Linear(width, width)

    def forward(self, micro: Tensor) -> Tensor:
        code = sinusoid(micro).flatten(1).to(self.inner.weight.dtype)  # [B, 4*256]
        return self.outer(F.silu(self.inner(code)))  # [B, D]


class RMSNorm(nn.Module):
    """x / rms(x) over the last dimension, times a learned gain (Zhang & Sennrich 2019)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        inverse = torch.rsqrt(x.float().square().mean(dim=-1, keepdim=True) + 1e-6)
        return (x * (inverse * self.weight)).to(x.dtype)  # [..., d]


class Attention(nn.Module):
    """Multi-head self-attention: logits logit_scale q k / sqrt(d), q and k normed, then turned."""

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.q_norm = RMSNorm(width // heads) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(width // heads) if qk_norm else nn.Identity()

    def forward(self, x: Tensor, rotation: Rotation | None, logit_scale: float) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # [B, N, 3, heads, d]
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, heads, N, d]
        q, k = self.q_norm(q), self.k_norm(k)  # [B, heads, N, d]
        if rotation is not None:
            q, k = turn(q, *rotation), turn(k, *rotation)  # [B, heads, N, d]
        scale = logit_scale / math.sqrt(q.shape[-1])
        x = F.scaled_dot_product_attention(q, k, v, scale=scale)  # [B, heads, N, d]
        return self.proj(x.transpose(1, 2).flatten(2))  # [B, N, D]


class Mlp(nn.Module):
    """Linear, GELU (tanh form, as in DiT), linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(F.gelu(self.inner(x), approximate="tanh"))  # [B, N, D]


class Block(nn.Module):
    """Transformer block with adaLN-Zero: the condition shifts, scales and gates both branches."""

    def __init__(self, width: int, heads: int, hidden: int, qk_norm: bool) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = Attention(width, heads, qk_norm)
        self.mlp_norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = Mlp(width, hidden)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(
        self, x: Tensor, condition: Tensor, rotation: Rotation | None, logit_scale: float
    ) -> Tensor:
        """x [B, N, D], condition [B, D] already through SiLU -> [B, N, D]."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(condition).chunk(6, 1)
        y = modulate(self.attention_norm(x), shift_a, scale_a)  # [B, N, D]
        x = x + gate_a[:, None] * self.attention(y, rotation, logit_scale)  # [B, N, D]
        y = modulate(self.mlp_norm(x), shift_m, scale_m)  # [B, N, D]
        return x + gate_m[:, None] * self.mlp(y)  # [B, N, D]


class FinalLayer(nn.Module):
    """Modulated norm, then each token to its patch's values: [B, N, D] -> [B, N, values]."""

    def __init__(self, width: int, values: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, values)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.modulation(condition).chunk(2, dim=1)  # [B, D] each
        return self.proj(modulate(self.norm(x), shift, scale))  # [B, N, values]
