"""Commands that make a weights file of a file that is not loaded as it is."""

from pathlib import Path


def load_expression(path: Path) -> str:
    """An expression that loads a weights file; the code in a pickled one runs."""
    if path.suffix == ".safetensors":
        return f"load_file('{path}')"
    return f"torch.load('{path}', map_location='cpu', weights_only=False)"


def extraction(load: str, condition: str = "", key: str = "k") -> str:
    """A command that writes the tensors of ``load`` to a safetensors file.

    Args:
        load: an expression for the tensors by name.
        condition: which of them, by ``k`` and ``v``; default all.
        key: the new name of the tensor ``k``.
    """
    only = f" if {condition}" if condition else ""
    return (
        'python -c "import torch; from safetensors.torch import load_file, save_file; '
        f"c = {load}; save_file({{{key}: v.clone() for k, v in c.items(){only}}}, "
        "'weights.safetensors')\""
    )


def joined_shards(path: Path, stem: str) -> str:
    """What to type to make one file of the shards beside a file."""
    pattern = path.with_name(f"{stem}-*-of-*.safetensors")
    return (
        'join them: python -c "import glob; from safetensors.torch import load_file, save_file; '
        f"c = {{}}; [c.update(load_file(f)) for f in sorted(glob.glob('{pattern}'))]; "
        "save_file(c, 'weights.safetensors')\""
    )
