"""What is measured beside the peers, and what has been promised of it: ratios to the fastest of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from benchmarks import cases


@dataclass(frozen=True)
class Subject:
    """A case beside the peers.

    Attributes:
        least: the ratio of the fastest peer's time to jitrt's that has been promised, if any has.
        entries: of jitrt's session options.
        timed: whether runs are timed; otherwise, first runs and memory are measured alone, beside onnxruntime's.
    """

    case: cases.Case
    least: float | None = None
    entries: Mapping[str, str] = field(default_factory=dict)
    timed: bool = True

    @property
    def rounds(self) -> bool:
        """Whether the entries let outputs differ by more than roundings of float32."""
        return self.entries.get("jitrt.weights") == "bfloat16"

    @property
    def name(self) -> str:
        """The case's, and what is special."""
        return ", ".join([self.case.name, *(f"{value} {key.rpartition('.')[2]}" for key, value in self.entries.items())])

    def __str__(self) -> str:
        return f"{self.case.group}: {self.name}"


@dataclass(frozen=True)
class Group:
    """What stands on one page.

    Attributes:
        file: the page's name.
        promised: names of cases and the ratios promised of them; None: measured without a promise of its own.
        held: how jitrt.weights holds them -> the same with such weights.
        untimed: names of cases whose memory is measured, but no time, as runs take too long.
        mean, worst: promised of those with a promise together, the geometric mean and the least.
        cold: seconds that a first run with an empty store may take.
        memory: of onnxruntime's peak memory, the most that jitrt may hold.
        batches: whether images in a batch are measured beside single ones.
        decoding: models of the zoo and their pasts, of whose steps the page tells how fast they read memory.
        lengths: models of the zoo with a dimension and the most that it is, which the page tells the price of new values of.
    """

    file: str
    promised: Mapping[str, float | None]
    held: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    untimed: Collection[str] = ()
    mean: float | None = None
    worst: float | None = None
    cold: float | None = None
    memory: float | None = None
    batches: bool = False
    decoding: Mapping[str, int] = field(default_factory=dict)
    lengths: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    def subjects(self) -> list[Subject]:
        """Those of which the packages are installed."""
        known = {str(case): case for case in cases.CASES}
        whole = [Subject(known[name], least) for name, least in self.promised.items() if name in known]
        held = [
            Subject(known[name], least, {"jitrt.weights": how}) for how, ones in self.held.items() for name, least in ones.items()
        ]
        return [*whole, *held, *(Subject(known[name], timed=False) for name in self.untimed)]


GROUPS = {
    "convolutions": Group(
        "PEERS.md",
        {
            "zoo: vgg19": 1.15,
            "zoo: resnet50": 1.25,
            "zoo: resnet18": 1.25,
            "zoo: densenet121": 1.15,
            "zoo: inception_v1": 1.15,
            "zoo: inception_v2": 1.15,
            "zoo: alexnet": 1.05,
            "zoo: zfnet512": 1.05,
            "zoo: squeezenet1_1": 1.1,
            "zoo: shufflenet_v2": 1.1,
            "zoo: mobilenet_v2": 1.1,
            "zoo: mobilenet_v3": 1.1,
            "zoo: efficientnet_b0": 1.1,
            "zoo: regnet_y_800mf": 1.1,
            "zoo: convnext_tiny": 1.1,
            "zoo: yolov8n": 1.2,
            "zoo: unet": 1.2,
            "real: PP-OCRv4 detection, 736x1280": 1.2,
            "zoo: resnet50, batch 8": None,
        },
        untimed=("zoo: unet, 1024x1024",),
        mean=1.25,
        worst=1.0,
        cold=8.0,
        memory=1.0,
        batches=True,
    ),
    "transformers": Group(
        "PEERS_TRANSFORMERS.md",
        {
            "zoo: bert_base": 1.08,
            "zoo: bert_base, batch 8": 1.08,
            "zoo: distilbert": 1.08,
            "zoo: minilm_l6, 32 tokens": 1.3,
            "zoo: vit_b16": 1.08,
            "zoo: clip_vision_b32": 1.08,
            "zoo: swin_tiny": 1.2,
            "zoo: convnext_tiny": 1.2,
            "zoo: segformer_b0": 1.2,
            "zoo: gpt2, prompt of 256": 1.08,
            "zoo: gpt2, past of 256": 1.0,
            "zoo: llama, past of 512": 1.0,
            "zoo: whisper_tiny_encoder": 1.1,
            "zoo: whisper_tiny_decoder": 1.3,
            "zoo: t5_encoder, 64 tokens": 1.15,
            "zoo: deberta_v3_small": 1.15,
            "pattern: attention, 1024 tokens": 1.5,
            "pattern: attention, 4096 tokens": 1.5,
        },
        held={
            "float32": {"zoo: whisper_tiny_decoder": 1.3},
            "bfloat16": {"zoo: gpt2, past of 256": 1.7, "zoo: llama, past of 512": 1.7},
        },
        decoding={"gpt2": 256, "llama": 512},
        lengths={"minilm_l6": ("sequence", 512), "gpt2": ("past_sequence", 1001)},
    ),
}


def chosen(words: str) -> list[Subject]:
    """The cases of the catalogue, and the subjects of groups, that hold every word of `words` in their names.

    Of what is promised twice, the greater ratio counts.
    """
    found: dict[str, Subject] = {str(case): Subject(case) for case in cases.chosen(words)}
    for subject in (s for group in GROUPS.values() for s in group.subjects()):
        name = str(subject).lower()
        if all(word in name for word in words.lower().split()):
            known = found.get(str(subject), subject)
            found[str(subject)] = replace(subject, least=max(known.least or 0.0, subject.least or 0.0) or None)
    return list(found.values())
