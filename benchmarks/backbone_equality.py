"""fairbench's backbones against transformers' own models and processors, on checkpoints in the official format.

    python benchmarks/backbone_equality.py

Of each family that has a plugin, and of each architecture of architectures.py through `vlm:FOLDER`.

Small checkpoints are drawn at random and written as the hub has them: config.json, safetensors shards with
their index, tokenizer, processor. fairbench loads them as NAME:FOLDER. Its counterpart is transformers'
`…ForConditionalGeneration` with the processor class of the family, which resizes images, expands prompts and
pads on its own. Compared are the tokens, the logits of the whole vocabulary at every real token, and the text of
greedy generation.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import architectures
import numpy as np
import torch
import transformers
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from fairbench import load_processor, plugins, tiny_tokenizer
from fairbench.jobs.job import Choice

Side = Literal["left", "right"]
PLUGINS = plugins.load(("backbone",))
WORDS = ("no", "yes")
LENGTH = 12  # tokens to generate
ONE, SEVERAL = ((90, 140),), ((90, 140), (140, 90), (60, 200), (112, 112))  # height, width
QUESTIONS = (
    "Glaucoma?",
    "Is there any sign of glaucoma in this photograph?",
    "Größe 12.75 mm², 3× larger: is this lesion benign or malignant?",
    "  Two spaces, then\na new line?",
)
DECODER = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.15,  # so wide that no two tokens are nearly equally likely
}
TOWER = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "initializer_range": 0.1,
}


@dataclass(frozen=True)
class Case:
    """One family: what fairbench calls it, and how its model and official processor are made."""

    family: str
    what: str
    model: Callable[[], Any] = lambda: None
    processor: Callable[[], Any] = lambda: None
    template: str = ""  # of the prompt, where no chat template makes it
    settings: tuple[tuple[str, Any], ...] = ()
    drawn: architectures.Architecture | None = None  # instead of model and processor


def sentences() -> Any:
    """Make a tokenizer as Vicuna's and Mistral's are: BPE of ▁words, bytes to fall back on, a start token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    vocabulary = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{i:02X}>" for i in range(256)),
        "▁",
        *"abcdefghijklmnopqrstuvwxyz?:",
    ]
    merges = [("▁", "i"), ("▁i", "s"), ("▁", "t"), ("e", "r"), ("▁", "y"), ("▁", "n")]
    vocabulary += ["".join(pair) for pair in merges]
    ids = {token: i for i, token in enumerate(vocabulary)}
    made = Tokenizer(models.BPE(vocab=ids, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>"
    )
    fast.add_special_tokens({"additional_special_tokens": ["<image>"]})
    return fast


def llava(tower: Any, decoder: type, next_: bool = False) -> Any:
    """Draw a LLaVA on a tower and a decoder."""
    tokenizer = sentences()
    kind = transformers.LlavaNextConfig if next_ else transformers.LlavaConfig
    more = {"image_grid_pinpoints": [[56, 112], [112, 56], [112, 112], [168, 56]]} if next_ else {}
    config = kind(
        vision_config=tower,
        text_config=decoder(
            **DECODER, vocab_size=len(tokenizer) + 3, bos_token_id=1, eos_token_id=2, pad_token_id=0
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        **more,
    )
    model = transformers.LlavaNextForConditionalGeneration if next_ else transformers.LlavaForConditionalGeneration
    return model(config)


def clip(size: int = 112) -> Any:
    """Return the configuration of a CLIP tower."""
    return transformers.CLIPVisionConfig(**TOWER, image_size=size, patch_size=28 if size == 112 else 14)


def llava_processor(next_: bool = False) -> Any:
    """Make the official processor of LLaVA, or of LLaVA-NeXT."""
    size = 56 if next_ else 112
    own: dict[str, Any] = {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
    kind, images = transformers.LlavaProcessor, CLIPImageProcessorPil
    if next_:
        kind, images = transformers.LlavaNextProcessor, LlavaNextImageProcessorPil
        own["image_grid_pinpoints"] = [[56, 112], [112, 56], [112, 112], [168, 56]]
    return kind(
        image_processor=images(**own),
        tokenizer=sentences(),
        patch_size=14 if next_ else 28,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


class WithoutVideos(transformers.Qwen2_5_VLProcessor):
    """The official processor as it is, made without its half for videos, which needs torchvision."""

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        """Let the absent half pass."""
        if argument is None:
            return None
        return super().check_argument_for_proper_class(argument_name, argument)

    def save_pretrained(self, folder: Path) -> None:
        """Write tokenizer and preprocessor_config.json, as the checkpoint on the hub has them."""
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)


def qwen_tokenizer() -> Any:
    """Make a tokenizer of bytes with the special tokens and the chat template of Qwen2.5-VL."""
    special = ["<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_start|>", "<|im_end|>", "<|video_pad|>"]
    # The official template, for messages of text and images; it begins every chat with a system prompt.
    template = (
        "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
        "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
        "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
        "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
        "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return tiny_tokenizer(special, template, end="<|im_end|>")


def qwen_processor() -> Any:
    """Make the official processor of Qwen2.5-VL."""
    images = Qwen2VLImageProcessorPil(size={"shortest_edge": 112 * 112, "longest_edge": 140 * 140})
    return WithoutVideos(
        image_processor=images, tokenizer=qwen_tokenizer(), chat_template=qwen_tokenizer().chat_template
    )


def qwen(tied: bool) -> Any:
    """Draw a Qwen2.5-VL, whose output embeddings are its input embeddings if `tied`."""
    text = {
        **DECODER,
        "vocab_size": 272,
        "bos_token_id": None,
        "eos_token_id": 261,
        "tie_word_embeddings": tied,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
    }
    vision = {
        "depth": 3,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 4,
        "out_hidden_size": 64,
        "fullatt_block_indexes": [1],
        "initializer_range": 0.1,
    }
    config = transformers.Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=tied,
        image_token_id=257,
        vision_start_token_id=258,
        vision_end_token_id=259,
        video_token_id=262,
    )
    return transformers.Qwen2_5_VLForConditionalGeneration(config)


VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions. USER: <image>\n{} ASSISTANT:"
)
MISTRAL = "[INST] <image>\n{} [/INST]"
PIXELS = (("min_pixels", 112 * 112), ("max_pixels", 140 * 140))
LLAMA, MISTRALS = transformers.LlamaConfig, transformers.MistralConfig
CASES = (
    Case("qwen2.5-vl", "Qwen2.5-VL", lambda: qwen(False), qwen_processor, settings=PIXELS),
    Case(
        "qwen2.5-vl",
        "Qwen2.5-VL, tied as 3B",
        lambda: qwen(True),
        qwen_processor,
        settings=PIXELS,
    ),
    Case("llava", "LLaVA-1.5: CLIP, Llama", lambda: llava(clip(), LLAMA), llava_processor, VICUNA),
    Case("llava", "LLaVA-Med-1.5: CLIP, Mistral", lambda: llava(clip(), MISTRALS), llava_processor, MISTRAL),
    Case(
        "llava",
        "LLaVA-Rad's parts: ViT, Llama",
        lambda: llava(transformers.ViTConfig(**TOWER, image_size=112, patch_size=28), LLAMA),
        llava_processor,
        VICUNA,
    ),
    Case(
        "llava-next",
        "LLaVA-NeXT: CLIP, Llama",
        lambda: llava(clip(56), LLAMA, next_=True),
        lambda: llava_processor(next_=True),
        VICUNA,
    ),
    Case(
        "llava-next",
        "LLaVA-NeXT: CLIP, Mistral",
        lambda: llava(clip(56), MISTRALS, next_=True),
        lambda: llava_processor(next_=True),
        MISTRAL,
    ),
)


def architecture(drawn: architectures.Architecture) -> Case:
    """Return an architecture as a case of `vlm:FOLDER`."""
    template = "" if drawn.template else drawn.image + "{}"
    return Case("vlm", drawn.kind, drawn=drawn, template=template)


def save(case: Case, folder: Path) -> Path:
    """Write a case's checkpoint in the official format, its weights in several shards."""
    if case.drawn is not None:
        return architectures.save(case.drawn, folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = case.model()
    model.save_pretrained(folder, max_shard_size="300KB")
    case.processor().save_pretrained(folder)
    assert (folder / "model.safetensors.index.json").is_file()
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


def build(case: Case, folder: Path, **settings: Any) -> Any:
    """Load a case's checkpoint as `fairbench run --backbones NAME:FOLDER` does."""
    name = f"{case.family}:{folder.name}"
    backbone = PLUGINS.make("backbone", Choice(name, {**dict(case.settings), **settings}), {name: folder})
    return backbone.build(WORDS, WORDS, torch.float32, torch.device("cpu"), generates=True)


def examples(count: int, sizes: Sequence[tuple[int, int]]) -> list[tuple[Image.Image, str]]:
    """Make `count` pictures and questions, in turn of each size."""
    generator = np.random.default_rng(0)
    shapes = [sizes[i % len(sizes)] for i in range(count)]
    pictures = [Image.fromarray(generator.integers(0, 255, (*shape, 3), dtype=np.uint8)) for shape in shapes]
    return [(picture, QUESTIONS[i % len(QUESTIONS)]) for i, picture in enumerate(pictures)]


@dataclass(frozen=True)
class Found:
    """How far fairbench is from transformers on one batch."""

    same_tokens: bool
    logits: float  # the largest difference
    spread: float  # the logits' own standard deviation
    same_text: bool
    texts: tuple[str, ...]


Asked = tuple[Image.Image | list[Image.Image], str]  # one or several pictures, and a question about them


def many(pictures: Image.Image | list[Image.Image]) -> list[Image.Image]:
    """Return pictures as a list."""
    return pictures if isinstance(pictures, list) else [pictures]


class Official:
    """transformers' own model and processor of a checkpoint."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case = case
        self.model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
        try:
            self.processor = transformers.AutoProcessor.from_pretrained(folder)
        except (ImportError, ValueError):  # its half for videos needs torchvision
            self.processor = load_processor(folder, self.model.config)

    def batch(self, asked: Sequence[Asked], side: Side) -> Any:
        """Return the model's inputs."""
        self.processor.tokenizer.padding_side = side
        if self.case.template:
            token = self.processor.image_token
            texts = [self.case.template.replace(token, token * len(many(p))).format(q) for p, q in asked]
            pictures = [many(picture) for picture, _ in asked]
            return self.processor(text=texts, images=pictures, padding=True, padding_side=side, return_tensors="pt")
        chats = []
        for pictures, question in asked:
            shown = [{"type": "image", "image": picture} for picture in many(pictures)]
            chats.append([{"role": "user", "content": [*shown, {"type": "text", "text": question}]}])
        return self.processor.apply_chat_template(
            chats,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True, "padding_side": side},
        )

    def write(self, asked: Sequence[Asked]) -> list[str]:
        """Generate greedily."""
        inputs, tokenizer = self.batch(asked, "left"), self.processor.tokenizer
        written = self.model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=LENGTH,
            pad_token_id=tokenizer.pad_token_id,
            suppress_tokens=[self.model.config.image_token_id],  # fairbench never writes one
        )[:, inputs["input_ids"].shape[1] :]
        listed = self.model.generation_config.eos_token_id
        ends = [listed] if isinstance(listed, int) else listed
        new = [
            row[: min([row.index(end) for end in ends if end in row], default=LENGTH)] for row in written.tolist()
        ]
        return [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]


@torch.no_grad()
def compare(backbone: Any, official: Official, asked: Sequence[Asked], side: Side) -> Found:
    """Answer the same questions about the same pictures with both."""
    prepared = [backbone.prepare_images(many(pictures), question) for pictures, question in asked]
    backbone.padding_side = side
    ours, theirs = backbone.stack(prepared), official.batch(asked, side)
    real = theirs["attention_mask"].bool()
    same = torch.equal(ours["attention_mask"].bool(), real)
    same = same and torch.equal(ours["input_ids"][real], theirs["input_ids"][real])
    if not same:
        return Found(False, float("nan"), float("nan"), False, ())
    logits = official.model(**theirs).logits[real]
    hidden = backbone.decode(ours, backbone.features(ours))[-1]
    difference = (backbone.vocabulary_scores(hidden[real]) - logits).abs().max()
    texts = backbone.generate(backbone.stack(prepared, prompt_only=True), LENGTH)
    return Found(True, float(difference), float(logits.std()), texts == official.write(asked), tuple(texts))


def table() -> list[tuple[Case, int, Side, str, Found]]:
    """Compare every family at batch sizes of 1 and 8, padded on both sides, with one and several image sizes."""
    rows = []
    for case in (*CASES, *map(architecture, architectures.ARCHITECTURES)):
        with tempfile.TemporaryDirectory() as name:
            folder = save(case, Path(name) / "checkpoint")
            backbone, official = build(case, folder), Official(case, folder)
        for sizes, what in ((ONE, "one"), (SEVERAL, "several")):
            asked = examples(8, sizes)
            for side in ("left", "right"):
                alone = [compare(backbone, official, [one], side) for one in asked]
                worst = max(alone, key=lambda each: each.logits)
                all_alone = Found(
                    all(each.same_tokens for each in alone),
                    worst.logits,
                    worst.spread,
                    all(each.same_text for each in alone),
                    tuple(each.texts[0] for each in alone if each.texts),
                )
                rows.append((case, 1, side, what, all_alone))
                rows.append((case, 8, side, what, compare(backbone, official, asked, side)))
    return rows


def main() -> None:
    """Print the table as markdown."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    print("| family | batch | padding | image sizes | same tokens | max abs Δ logits | their spread | same text |")
    print("| --- | --: | --- | --- | --- | --: | --: | --- |")
    for case, batch, side, sizes, agreement in table():
        yes = {True: "yes", False: "NO"}
        print(
            f"| {case.what} | {batch} | {side} | {sizes} | {yes[agreement.same_tokens]} | {agreement.logits:.1e} "
            f"| {agreement.spread:.2f} | {yes[agreement.same_text]} |"
        )
    print(f"\ntorch {torch.__version__}, transformers {transformers.__version__}")


if __name__ == "__main__":
    main()
