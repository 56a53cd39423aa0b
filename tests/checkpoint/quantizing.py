"""How tests quantise folders, and look at what came out."""

from pathlib import Path

from safetensors.torch import load_file

from rackscale.checkpoint.quantizer import Options, open_job


def run(source, target, *, encoder=None, num_threads=2, **options):
    with open_job(Path(source), target, Options(**options)) as job:
        return job.run(encoder, num_threads=num_threads)


def tensors_of(folder):
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        if file.name != "golden.safetensors":
            tensors |= load_file(file)
    return tensors


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}
