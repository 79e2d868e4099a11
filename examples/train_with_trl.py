"""Train on packed rows with the `SFTTrainer` of TRL: the rows and the loss of any trainer here.

    python examples/train_with_trl.py
    python examples/train_with_trl.py --lora 8

Needs `pip install trl peft`, beside the extras `cli` and `trainer`. See docs/trainers.md.
"""

import argparse
from pathlib import Path

from datasets import Dataset
from peft import LoraConfig
from transformers import PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

from hedgerow import Budget, ChatFormat, Encoder, Molmo2Processor, load_tokenizer, read_trees
from hedgerow.data.synthetic import Scenes, write_scenes
from hedgerow.integrations.hf import HedgerowTrainer
from hedgerow.models.assemble import ModelSpec, build
from hedgerow.packing.loader import Fixed, RowLoader


class HedgerowSFT(HedgerowTrainer, SFTTrainer):
    """An SFTTrainer whose data and loss are those of rows."""


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/trl"), help="folder of the run")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--lora", type=int, default=0, help="rank of adapters beside q_proj and v_proj")
    parser.add_argument("--lr", type=float, default=2e-3)
    return parser.parse_args()


def main() -> None:
    options = parsed()
    tokenizer = load_tokenizer("tiny")
    processor = Molmo2Processor(crop_size=28, patch_size=7, margins=(1, 1), max_frames=4)
    encode = Encoder(ChatFormat(tokenizer), processor)
    written = write_scenes(options.out / "data", Scenes(seconds=2.0), 8, seed=0)
    trees = list(read_trees(written.trees))
    costs = [encode.measure(tree) for tree in trees]
    rows = RowLoader(
        Fixed(lambda number: encode(trees[number]), costs), Budget(tokens=4096, crops=64), seed=0
    )
    spec = ModelSpec(hidden=64, layers=2, vision_hidden=32, vision_layers=1, crop_size=28, patch_size=7)
    trainer = HedgerowSFT(
        build(spec, tokenizer=tokenizer, seed=0),
        rows,
        SFTConfig(
            str(options.out),
            max_steps=options.steps,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=2,
            learning_rate=options.lr,
            logging_steps=5,
            bf16=False,
            use_cpu=True,
            report_to=[],
            dataset_kwargs={"skip_prepare_dataset": True},  # rows are encoded
        ),
        encoder=encode,
        # What TRL asks for before it starts: the rows of the plan, by number, and a tokenizer of its kind.
        train_dataset=Dataset.from_dict({"row": list(range(len(rows.plan(0).rows)))}),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>"),
        peft_config=LoraConfig(r=options.lora, target_modules=["q_proj", "v_proj"]) if options.lora else None,
    )
    trainer.train()
    trainer.save_model()
    print(f"{options.out / 'model'}: read it with {'peft' if options.lora else 'transformers'}")


if __name__ == "__main__":
    main()
