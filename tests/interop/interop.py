"""Carousel against transformers' xLSTMForCausalLM: logits agree to 1e-4 in both directions.

Usage: interop.py CAROUSEL INTEROP_LOGITS     the program, and the program that prints its logits
"""

import contextlib
import pathlib
import subprocess
import sys
import tempfile
import unittest
import unittest.mock

import torch
from safetensors.torch import load_file, save_file
from transformers import xLSTMConfig, xLSTMForCausalLM
from transformers.models.xlstm.modeling_xlstm import xLSTMPreTrainedModel

CAROUSEL, LOGITS = sys.argv[1:3]
TOLERANCE = 1e-4
VOCAB = 61

MODELS = {
    "plain": "embedding_dim: 128, num_heads: 2",
    # Queries of width 96, which transformers' cache rounds up to 128.
    "without a cache": "embedding_dim: 192, num_heads: 4",
    "without caps": "embedding_dim: 128, num_heads: 2, gate_soft_cap: 0, output_logit_soft_cap: 0",
    "biased": "embedding_dim: 128, num_heads: 2, use_bias: true",
}
TRAINED = f"""
name: interop
seed: 3
steps: 8
model:
  {{family: xlstm_large, {{model}}, num_blocks: 2, vocab_size: {VOCAB}}}
data:
  train: [{{text}}]
  tokenizer: char
  seq_len: 48
  batch_size: 4
optim: {{lr: 3.0e-3}}
checkpoint: {{every: 8}}
"""


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stderr}")


def random_ids():
    return torch.randint(0, VOCAB, (2, 48), generator=torch.Generator().manual_seed(1))


def initialisation(mode):
    """The library's initialisation, which loading overwrites; it fails on fused gates in 5.x."""
    if mode == "single":
        return contextlib.nullcontext()
    return unittest.mock.patch.object(xLSTMPreTrainedModel, "_init_weights", lambda *_: None)


def their_logits(directory, mode="single"):
    """With a cache or without, as config.json says."""
    with initialisation(mode):
        model = xLSTMForCausalLM.from_pretrained(directory, dtype=torch.float32)
    with torch.no_grad():
        return model(random_ids()).logits.float()


def relative_error(got, want):
    return ((got.double() - want.double()).norm() / want.double().norm()).item()


class Interop(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.dir = pathlib.Path(self.temporary.name)

    def our_logits(self, run_directory):
        save_file({"ids": random_ids().int()}, self.dir / "ids.safetensors")
        run(LOGITS, run_directory, self.dir / "ids.safetensors", self.dir / "out.safetensors")
        return load_file(self.dir / "out.safetensors")["logits"]

    def expect_same(self, got, want):
        self.assertEqual(got.shape, want.shape)
        self.assertLess(relative_error(got, want), TOLERANCE)

    def test_transformers_loads_our_checkpoint_unchanged(self):
        for name, model in MODELS.items():
            with self.subTest(model=name):
                self.export_one(self.dir / name, model)

    def export_one(self, directory, model):
        directory.mkdir()
        text = directory / "text.txt"
        text.write_text("the quick brown fox jumps over the lazy dog, again and again.\n" * 40)
        config = directory / "run.yaml"
        config.write_text(TRAINED.replace("{text}", str(text)).replace("{model}", model))
        run_directory = directory / "run"
        run(CAROUSEL, "train", config, "device=cpu", f"output_dir={run_directory}")
        ours = self.our_logits(run_directory)
        self.expect_same(their_logits(run_directory / "checkpoints/step-00000008"), ours)
        # Without initialisation(), nothing would zero the norms' biases, which we do not write.
        for mode in ("single",) if "use_bias" in model else ("single", "fused"):
            out = directory / f"export-{mode}"
            run(CAROUSEL, "export", run_directory, out, "--weight-mode", mode, "--shard-gb", 1e-4)
            self.assertGreater(len(list(out.glob("model-*.safetensors"))), 1)
            self.expect_same(their_logits(out, mode), ours)

    def test_we_import_what_transformers_saved(self):
        for mode in ("single", "fused"):
            for dtype in (torch.float32, torch.bfloat16, torch.float16):
                for shard in ("50GB", "100KB"):
                    with self.subTest(mode=mode, dtype=dtype, shard=shard):
                        self.import_one(mode, dtype, shard)

    def import_one(self, mode, dtype, shard):
        torch.manual_seed(2)
        config = xLSTMConfig(
            vocab_size=VOCAB, hidden_size=128, num_hidden_layers=2, num_heads=2, qk_dim_factor=0.5,
            weight_mode=mode, chunk_size=16, chunkwise_kernel="chunkwise--native_autograd",
            sequence_kernel="native_sequence__native", step_kernel="native",
            autocast_kernel_dtype="float32", return_last_states=True, mode="inference")
        with initialisation(mode):
            model = xLSTMForCausalLM(config)
        with torch.no_grad():  # nothing may stay at a value that hides a mistake
            for name, p in model.named_parameters():
                p.add_(0.1 * torch.randn_like(p)) if p.dim() == 1 else p.normal_(0, 0.09)
        name = f"{mode}-{str(dtype).split('.')[1]}-{shard}"
        model.to(dtype).save_pretrained(self.dir / name, max_shard_size=shard)
        if shard != "50GB":
            self.assertTrue((self.dir / name / "model.safetensors.index.json").exists())
        run(CAROUSEL, "import", self.dir / name, self.dir / f"run-{name}")
        # Both compute in float32 from the rounded weights.
        theirs = their_logits(self.dir / name, mode)
        self.expect_same(self.our_logits(self.dir / f"run-{name}"), theirs)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
