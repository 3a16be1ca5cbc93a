"""MusicGen on one page: text in, music out, and nothing between the two left out.

    python musicgen_on_one_page.py "peaceful piano melody" --output piano.wav --seed 3

Read it from top to bottom; it follows the data:

    "peaceful piano melody"
       │  tokenizer         ids       [1, text_tokens]               pieces of words, as numbers
       │  T5 encoder        states    [1, text_tokens, text_width]   what each piece means beside the others
       │  projection        text      [1, text_tokens, model_width]  the same, in the decoder's width
       │  decoder           codes     [codebooks, frames]            the music, as numbers: 50 frames a second
       │  EnCodec           waveform  [samples]                      the music, as sound
    piano.wav

T5 reads, EnCodec turns codes into sound: both are older than MusicGen, which uses them as they are, and so does this
page, from the `transformers` library. What MusicGen itself is (Copet et al. 2023, arXiv:2306.05284) lies between: a
decoder, and an order in which it writes. The weights may be those of any mono checkpoint in transformers' layout: the
small one of this course, or Meta's (`hf download facebook/musicgen-small --local-dir small`, then `--model small`; its
licence is CC-BY-NC 4.0). Widths and depths differ between them; what is computed does not.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from textwrap import shorten

import soundfile
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file

if __name__ == "__main__":
    sys.modules["torchaudio"] = None  # else transformers would import it, even broken; here it has no use
from transformers import AutoConfig, AutoTokenizer, EncodecModel, T5EncoderModel

SHIPPED = Path(__file__).resolve().parent.parent / "musicgen_edu" / "weights" / "tiny"

# 1. A checkpoint is a folder: sizes in config.json, and weights, which are tensors with names, in one file or several.
#
# Nothing is learned on this page. `weights["lm_heads.0.weight"]` and the like are what training left behind, under the
# names that they have in the file: to see where a tensor of Meta's is used, look for its name.


def open_checkpoint(folder):
    """Return the config, the advice on how to sample, and all weights by name."""
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is no checkpoint's folder: it holds no config.json.")
    found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found |= found.get("decoder", {}) | {"model_type": found.get("model_type")}
    only = {"model_type": "musicgen", "codebook_pattern": "delay", "audio_channels": 1, "scale_embedding": False}
    for key, value in only.items():  # no melody, no stereo, no other order of codebooks
        if found.get(key, value) != value:
            raise ValueError(f"This page cannot play {folder}: its {key} is {found[key]!r}, not {value!r}.")
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise ValueError(f"{folder} holds no model.safetensors; pickles (.bin) can run code, and are not opened.")
    advice = {"guidance_scale": 3.0, "temperature": 1.0, "top_k": 250, "do_sample": True}  # the paper's choice
    if (folder / "generation_config.json").is_file():
        chosen = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
        advice |= {name: chosen[name] for name in advice if chosen.get(name) is not None}
    weights = {name: tensor.float() for file in files for name, tensor in load_file(file).items()}
    return AutoConfig.from_pretrained(folder), advice, weights


def part_of(weights, prefix):
    """Return the weights whose names begin so, without that beginning."""
    return {name[len(prefix) :]: tensor for name, tensor in weights.items() if name.startswith(prefix)}


# 2. The words. A tokenizer cuts the prompt into pieces of its vocabulary. T5's encoder gives one vector a piece, which
# has looked at all the others: "piano" in "no piano" becomes another vector than in "piano solo". One linear layer
# brings it to the decoder's width (768 → 1024 in musicgen-small, 512 → 768 in the shipped model; equal widths need
# none). All this happens once, before the first note.


def read_prompt(prompt, folder, config, weights):
    """Text → what the decoder looks at, [1, text_tokens, model_width]."""
    ids = AutoTokenizer.from_pretrained(folder)(prompt, truncation=True, max_length=256, return_tensors="pt").input_ids
    if ids.shape[1] < 2:  # nothing but the piece that ends every prompt
        raise ValueError("The prompt is empty: describe some music, such as 'a happy piano melody with drums'.")
    t5 = T5EncoderModel(config.text_encoder).eval()
    own = part_of(weights, "text_encoder.")  # the table of pieces goes by two names, and a file has either or both
    table = own["shared.weight" if "shared.weight" in own else "encoder.embed_tokens.weight"]
    t5.load_state_dict(own | {"shared.weight": table, "encoder.embed_tokens.weight": table})
    states = t5(input_ids=ids).last_hidden_state
    if "enc_to_dec_proj.weight" in weights:
        states = F.linear(states, weights["enc_to_dec_proj.weight"], weights["enc_to_dec_proj.bias"])
    return states


# 3. The decoder is a transformer, like any language model's, with three things of its own.
#
#  - EnCodec writes 1/50 s of sound as K numbers (four in every mono MusicGen), the codes of a frame. The first names
#    the nearest of 2048 entries in a first codebook, the second the nearest in a second codebook to what the first left
#    over, and so on, from coarse to fine. So a position holds K tokens; its vector is the sum of their K embeddings.
#  - Every layer looks first at the music so far (self-attention) and then at the words (cross-attention).
#  - At the end, K linear layers instead of one score the next codes: a head for each codebook.
#
# Only the norms have biases. Where in time a position stands, waves of model_width / 2 frequencies tell it.


class Decoder:
    """Called once a step, with one column of codes in each row: the first row has the words, the second has none."""

    def __init__(self, weights, heads, text, rows, steps):
        self.weights, self.heads, self.rows, self.now = weights, heads, rows, 0
        self.codebooks = sum(name.startswith("lm_heads.") for name in weights)
        self.layers = [f"model.decoder.layers.{i}." for i in range(sum(".fc1." in name for name in weights))]
        entries, self.width = weights["model.decoder.embed_tokens.0.weight"].shape
        self.special = entries - 1  # the code past the last code: it stands where there is no music, as at the start
        # What attention reads, keys and values, is kept and not computed again: the words and the past do not change.
        self.words = {layer: self.keys_and_values(layer + "encoder_attn.", text) for layer in self.layers}
        self.past = {layer: torch.empty(2, rows, heads, steps, self.width // heads) for layer in self.layers}

    def step(self, codes):
        """Codes of this step, [rows, codebooks] → scores of the next one's, [rows, codebooks, codebook_size]."""
        tables = [self.weights[f"model.decoder.embed_tokens.{k}.weight"] for k in range(self.codebooks)]
        x = sum(F.embedding(codes[:, k], table) for k, table in enumerate(tables))[:, None] + self.wave()
        for layer in self.layers:  # each part reads the normed sum and adds to it
            x = x + self.look_back(layer, self.norm(layer + "self_attn_layer_norm", x))
            x = x + self.look_at_words(layer, self.norm(layer + "encoder_attn_layer_norm", x))
            x = x + self.think(layer, self.norm(layer + "final_layer_norm", x))
        self.now += 1
        x = self.norm("model.decoder.layer_norm", x)[:, 0]
        return torch.stack([self.linear(f"lm_heads.{k}", x) for k in range(self.codebooks)], dim=1)

    def look_back(self, layer, x):
        """Self-attention. The future cannot be looked at: it is not there. (Training, all steps at once, masks it.)"""
        self.past[layer][:, :, :, self.now] = self.keys_and_values(layer + "self_attn.", x)[:, :, :, 0]
        return self.attend(layer + "self_attn.", x, *self.past[layer][:, :, :, : self.now + 1])

    def look_at_words(self, layer, x):
        """Cross-attention. Where there are no words, nothing is added: without biases, no words make exactly 0."""
        attended = self.attend(layer + "encoder_attn.", x[:1], *self.words[layer])
        return torch.cat([attended, torch.zeros_like(x[1:])])

    def think(self, layer, x):
        """The feed-forward: each position by itself, through a wider layer and back."""
        return self.linear(layer + "fc2", F.gelu(self.linear(layer + "fc1", x)))

    def attend(self, name, x, keys, values):
        """softmax(queries · keys / √head_size) · values, in every head (Vaswani et al. 2017, section 3.2)."""
        gathered = F.scaled_dot_product_attention(self.split(self.linear(name + "q_proj", x)), keys, values)
        return self.linear(name + "out_proj", gathered.transpose(1, 2).flatten(2))

    def keys_and_values(self, name, x):
        """What each position is found by, and what it then hands over: [2, rows, heads, positions, head_size]."""
        return torch.stack([self.split(self.linear(name + part, x)) for part in ("k_proj", "v_proj")])

    def split(self, x):
        """[rows, positions, model_width] → [rows, heads, positions, head_size]."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def linear(self, name, x):
        return F.linear(x, self.weights[name + ".weight"])

    def norm(self, name, x):
        return F.layer_norm(x, (self.width,), self.weights[name + ".weight"], self.weights[name + ".bias"])

    def wave(self):
        """The position, [model_width]: cosines, then sines, from 1 radian a step down to 1/10,000."""
        half = self.width // 2
        phases = self.now * torch.exp(torch.arange(half).float() * -(math.log(10_000) / (half - 1)))
        return torch.cat([phases.cos(), phases.sin()])


# 4. Writing. A step writes K codes at once, and none of them sees the others; yet the codes of a frame depend on each
# other. So codebook k runs k steps late (the delay pattern): when a frame's second code is written, its first is there
# to be read. For four frames, with · for the special code:
#
#     step         0  1  2  3  4  5  6  7
#     codebook 0   ·  1  2  3  4  ·  ·  ·       frames + K − 1 steps; one code after the other would take frames × K,
#     codebook 1   ·  ·  1  2  3  4  ·  ·       four times as many, and sound hardly better (the paper's table 4).
#     codebook 2   ·  ·  ·  1  2  3  4  ·
#     codebook 3   ·  ·  ·  ·  1  2  3  4
#
# Guidance: every step is computed with the words and without them (now and then training withheld them, so that the
# model can do without), and what the words change is exaggerated: without + (with − without) × 3.


def write_codes(decoder, frames, seed, guidance, temperature, top_k):
    """Return codes, [codebooks, frames]: the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    columns = torch.full((decoder.codebooks, frames + decoder.codebooks), decoder.special)
    for step in range(1, frames + decoder.codebooks):
        scores = decoder.step(columns[:, step - 1].repeat(decoder.rows, 1))
        if decoder.rows == 2:
            scores = scores[1:] + (scores[:1] - scores[1:]) * guidance
        chosen = draw(scores[0], generator, temperature, top_k)
        for k in range(decoder.codebooks):
            if 1 + k <= step < 1 + k + frames:
                columns[k, step] = chosen[k]
    return torch.stack([columns[k, 1 + k : 1 + k + frames] for k in range(decoder.codebooks)])


def draw(scores, generator, temperature, top_k):
    """Scores [codebooks, codebook_size] → a code each, with probability softmax(scores / temperature) of the best."""
    if temperature < 1e-6:  # no chance at all
        return scores.argmax(dim=1)
    scores = scores / temperature
    worst_kept = scores.topk(min(top_k or scores.shape[1], scores.shape[1])).values[:, -1:]
    # The argmax of scores plus Gumbel noise is such a draw; −log of an exponential variable is such noise.
    noise = -torch.empty(scores.shape).exponential_(generator=generator).log()
    return (scores.masked_fill(scores < worst_kept, -math.inf) + noise).argmax(dim=1)


# 5. The sound. EnCodec looks up the K entries that a frame's codes name and adds them to one vector; convolutions turn
# 50 vectors a second into 32,000 samples a second (16,000 in the shipped model). And then everything, in order.


def speak(codes, config, weights):
    """Codes [codebooks, frames] → samples between −1 and 1, [samples]."""
    encodec = EncodecModel(config.audio_encoder).eval()
    encodec.load_state_dict(part_of(weights, "audio_encoder."))
    return encodec.decode(codes[None, None], [None]).audio_values[0, 0]


@torch.inference_mode()
def generate(prompt, folder, duration=8.0, seed=0, guidance=None, temperature=None, top_k=None):
    """Text → codes [codebooks, frames], samples [samples], samples a second. None means: as the checkpoint advises."""
    config, advice, weights = open_checkpoint(Path(folder))
    guidance = advice["guidance_scale"] if guidance is None else guidance
    temperature = advice["temperature"] * advice["do_sample"] if temperature is None else temperature
    top_k = advice["top_k"] if top_k is None else top_k
    given = {"duration": duration, "seed": seed, "guidance": guidance, "temperature": temperature, "top_k": top_k}
    for name, value in given.items():
        if not (0 < value if name == "duration" else 0 <= value) or value == math.inf:
            raise ValueError(f"{name} must be {'more than' if name == 'duration' else 'at least'} 0, not {value}.")
    rate = config.audio_encoder.sampling_rate
    frames = max(1, round(duration * rate / math.prod(config.audio_encoder.upsampling_ratios)))
    text = read_prompt(prompt, folder, config, weights)
    rows, steps = 1 if guidance == 1 else 2, frames + config.decoder.num_codebooks
    decoder = Decoder(part_of(weights, "decoder."), config.decoder.num_attention_heads, text, rows, steps)
    codes = write_codes(decoder, frames, seed, guidance, temperature, top_k)
    return codes, speak(codes, config, weights), rate


def main():
    parser = argparse.ArgumentParser(description="Text in, music out: MusicGen on one page.")
    parser.add_argument("prompt")
    parser.add_argument("--model", type=Path, default=SHIPPED, help="a folder in transformers' MusicGen layout")
    parser.add_argument("--output", type=Path, default=Path("music.wav"))
    parser.add_argument("--duration", type=float, default=8.0, help="seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guidance", type=float, help="1 switches it off")
    parser.add_argument("--temperature", type=float, help="0 takes the best code always")
    parser.add_argument("--top-k", type=int, help="0 keeps all codes")
    args = vars(parser.parse_args())
    folder, output = args.pop("model"), args.pop("output")
    try:
        if output.suffix != ".wav" or not output.parent.is_dir():
            raise ValueError(f"{output} cannot be written: name a file that ends in .wav, in a folder that exists.")
        codes, samples, rate = generate(folder=folder, **args)
        soundfile.write(output, samples.numpy(), rate)
    except (json.JSONDecodeError, SafetensorError) as error:
        sys.exit(f"A file of {folder} is damaged ({error}): copy it again.")
    except KeyError as error:
        sys.exit(f"The weights of {folder} are not complete: {error} is missing.")
    except RuntimeError as error:
        sys.exit(shorten(f"The weights of {folder} do not fit each other or its config.json: {error}", 300))
    except (OSError, ValueError) as error:
        sys.exit(shorten(str(error), 300))
    print(f"{output}: {len(samples) / rate:.2f} s at {rate} Hz, from codes of shape {list(codes.shape)}")


if __name__ == "__main__":
    main()
