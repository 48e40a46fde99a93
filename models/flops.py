"""The cost of one forward pass, counted from the shapes."""

from models.layers import SINUSOID


def flops(
    *,
    channels: int,
    width: int,
    depth: int,
    mlp_ratio: float,
    patch: int,
    micro_conditioning: bool,
    grid: tuple[int, int],
    outputs: int = 1,
) -> int:
    """FLOPs of one image's forward pass: 2 for each multiply-add of a matrix product.

    With N = h w tokens, D = width, M = int(D mlp_ratio) and V = channels patch^2, in multiply-adds:
    patches (1 + outputs) N V D, with 2 outputs where a variance is predicted too; per block
    N (4 D^2 + 2 D M) for the linear layers, 2 N^2 D for q k and its product with v (whatever the
    heads), 6 D^2 for adaLN; 2 D^2 for the last adaLN; 256 D + D^2 for the timestep and 1024 D + D^2
    for micro-conditions. Norms, encodings and activations are left out, as is usual. Training costs
    about three times this.
    """
    tokens = grid[0] * grid[1]
    hidden = int(width * mlp_ratio)
    values = channels * patch * patch
    block = tokens * (4 * width**2 + 2 * width * hidden) + 2 * tokens**2 * width + 6 * width**2
    condition = SINUSOID * width + width**2
    if micro_conditioning:
        condition += 4 * SINUSOID * width + width**2
    return 2 * ((1 + outputs) * tokens * values * width + depth * block + 2 * width**2 + condition)
