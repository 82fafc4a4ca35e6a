"""The planner, system 2: where to act, as a latent plan and in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from internvla_ros.model.checkpoint import read_checkpoint
from internvla_ros.model.config import PolicyConfig
from internvla_ros.model.decoding import Decoding, greedy, greedy_with_draft
from internvla_ros.model.images import AnyImage, to_tensor
from internvla_ros.model.plan import Plan
from internvla_ros.model.pretrained import load_part
from internvla_ros.model.reader import Prefix, Reader, Sight
from internvla_ros.spatial.prompts import Kind, point_prompt, question, trace_prompt
from internvla_ros.spatial.text import parse
from internvla_ros.spatial.types import SpatialAnswer, Turn

Views = Sequence[AnyImage]
MAX_ANSWER_TOKENS = 96


class Planner(Reader):
    """Qwen2.5-VL under the prompts of one policy. Images are numpy, PIL or tensors of any size."""

    def __init__(self, config: PolicyConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(config.planner, tokenizer)
        self.policy_config = config

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        watch: Callable[[float], object] | None = None,
    ) -> Planner:
        """The planner of a checkpoint alone, in eval mode; raises `CheckpointError`.

        `watch` is called with the share of the weights that is read, up to 1.
        """
        checkpoint = read_checkpoint(name)
        return load_part(
            lambda: cls(checkpoint.config, checkpoint.tokenizer),
            checkpoint,
            "planner.",
            device,
            dtype,
            watch,
        )

    def prompt(self, instruction: str) -> str:
        """The spatial prompt of an instruction, as trained."""
        return self.policy_config.prompt.replace("{instruction}", self._spoken(instruction))

    @torch.inference_mode()
    def plan(self, images: Sequence[Views], instructions: Sequence[str]) -> Plan:
        """The latent plan of a batch; images[b] are sample b's views, the planner's first."""
        sights = self._look_at(images, instructions)
        prompts = [
            self.chat_format.prompt(self.prompt(text), sight.image_tokens)
            for text, sight in zip(instructions, sights, strict=True)
        ]
        reading = self.prepare(prompts, [sight.grids for sight in sights])
        states = self.hidden_states(reading, _joined(sights), *self._layers)
        return Plan(states, reading.mask, tuple(instructions))

    @torch.inference_mode()
    def look(
        self,
        images: Sequence[Views],
        instructions: Sequence[str],
        *,
        trace: bool = False,
        drafts: dict[str, list[int]] | None = None,
    ) -> tuple[Plan, list[SpatialAnswer]]:
        """The plan and, in words of the same conversation, its boxes and points (and a trace).

        Boxes and points are [object to move, destination], in pixels of each sample's first view.
        `drafts`, kept by the caller from tick to tick, makes decoding for one scene faster without
        changing its result.
        """
        sights = self._look_at(images, instructions)
        prompts = [
            self.chat_format.prompt(self.prompt(text), sight.image_tokens)
            for text, sight in zip(instructions, sights, strict=True)
        ]
        plan, prefix = self._read(prompts, sights, instructions)
        if len(instructions) == 1:
            texts = [
                self._converse(prefix, instructions[0], trace, {} if drafts is None else drafts)
            ]
        else:
            texts = self._converse_batch(prompts, sights, instructions, prefix, trace)
        return plan, [
            self._parse(answers, sight, views[0])
            for answers, sight, views in zip(texts, sights, images, strict=True)
        ]

    @torch.inference_mode()
    def ground(
        self,
        image: AnyImage,
        query: str,
        kind: Kind = "box",
        max_tokens: int = MAX_ANSWER_TOKENS,
    ) -> SpatialAnswer:
        """Where something is: boxes of what `query` names, or for an instruction points or a trace.

        Places are in pixels of the image given, whatever its size.
        """
        return self.answer([image], [question(query, kind)], max_tokens)[0]

    @torch.inference_mode()
    def answer(
        self, images: Views, questions: Sequence[str], max_tokens: int = MAX_ANSWER_TOKENS
    ) -> list[SpatialAnswer]:
        """Answer one question, worded as trained, about each image; pixels are those given."""
        sights = self._look_at(
            [[image] for image in images], questions, native=self.config.native_answers
        )
        prompts = [
            self.chat_format.prompt(text, sight.image_tokens)
            for text, sight in zip(questions, sights, strict=True)
        ]
        _, prefix = self._read(prompts, sights, questions)
        answers = greedy(self, prefix, Decoding(max_tokens))
        return [
            self._parse([self.chat_format.decode(answer)], sight, image)
            for answer, sight, image in zip(answers, sights, images, strict=True)
        ]

    @torch.inference_mode()
    def chat(
        self,
        images: Views,
        message: str,
        *,
        history: Sequence[Turn] = (),
        max_tokens: int = 256,
        stop: Sequence[str] = (),
        repetition_penalty: float = 1.0,
    ) -> str:
        """The model's answer to a message about some images (none is fine), decoded greedily.

        `history` are earlier turns about the same images. The answer ends at the model's own end,
        before the first of the `stop` strings, or after `max_tokens`.
        """
        return self.chat_format.decode(
            self.chat_ids(
                images,
                message,
                history=history,
                max_tokens=max_tokens,
                stop=stop,
                repetition_penalty=repetition_penalty,
            ),
            stop,
        )

    @torch.inference_mode()
    def chat_ids(
        self,
        images: Views,
        message: str,
        *,
        history: Sequence[Turn] = (),
        max_tokens: int = 256,
        stop: Sequence[str] = (),
        repetition_penalty: float = 1.0,
    ) -> list[int]:
        """The token ids of `chat`'s answer, without the end token."""
        pictures = [to_tensor(image, self.device) for image in images]
        sights = self.see([pictures], native=self.config.native_answers)
        turns = [*history, Turn(message, "")]
        prompt = self.chat_format.conversation(turns, sights[0].image_tokens)
        _, prefix = self._read([prompt], sights, [message])
        return greedy(self, prefix, Decoding(max_tokens, tuple(stop), repetition_penalty))[0]

    @property
    def _layers(self) -> tuple[int, int]:
        return self.policy_config.qformer.start_layer, self.policy_config.qformer.end_layer

    def _spoken(self, instruction: str) -> str:
        return instruction.lower() if self.policy_config.lowercase_instruction else instruction

    def _look_at(
        self, images: Sequence[Views], texts: Sequence[str], native: bool = False
    ) -> list[Sight]:
        if len(images) != len(texts) or not images:
            raise ValueError(f"{len(images)} sets of views for {len(texts)} texts")
        return self.see(
            [
                [to_tensor(v, self.device) for v in views[: self.config.views or None]]
                for views in images
            ],
            native,
        )

    def _read(
        self, prompts: list[list[int]], sights: list[Sight], texts: Sequence[str]
    ) -> tuple[Plan, Prefix]:
        reading = self.prepare(prompts, [sight.grids for sight in sights])
        states, prefix = self.read(reading, _joined(sights), *self._layers)
        return Plan(states, reading.mask, tuple(texts)), prefix

    def _questions(self, instruction: str, trace: bool) -> list[tuple[str, str]]:
        text = self._spoken(instruction)
        questions = [("points", point_prompt(text))]
        return [*questions, ("trace", trace_prompt(text))] if trace else questions

    def _converse(
        self, prefix: Prefix, instruction: str, trace: bool, drafts: dict[str, list[int]]
    ) -> list[str]:
        answers = {
            "boxes": greedy_with_draft(self, prefix, MAX_ANSWER_TOKENS, drafts.get("boxes", []))
        }
        for kind, text in self._questions(instruction, trace):
            follow_up = self.chat_format.follow_up(text)
            self.extend(prefix, torch.tensor([follow_up], device=self.device))
            answers[kind] = greedy_with_draft(self, prefix, MAX_ANSWER_TOKENS, drafts.get(kind, []))
        drafts.update(answers)
        return [self.chat_format.decode(ids) for ids in answers.values()]

    def _converse_batch(
        self,
        prompts: list[list[int]],
        sights: list[Sight],
        instructions: Sequence[str],
        prefix: Prefix,
        trace: bool,
    ) -> list[list[str]]:
        chat, spoken = self.chat_format, [list(prompt) for prompt in prompts]
        texts: list[list[str]] = [[] for _ in instructions]
        rounds = list(zip(*(self._questions(i, trace) for i in instructions), strict=True))
        for number in range(len(rounds) + 1):
            if number:
                for said, (_, text) in zip(spoken, rounds[number - 1], strict=True):
                    said += chat.follow_up(text)
                prefix = self._read(spoken, sights, instructions)[1]
            for row, answer in enumerate(greedy(self, prefix, Decoding(MAX_ANSWER_TOKENS))):
                texts[row].append(chat.decode(answer))
                spoken[row] += [*answer, chat.end]
        return texts

    def _parse(self, texts: Sequence[str], sight: Sight, image: AnyImage) -> SpatialAnswer:
        rows, columns = sight.grids[0]
        width, height = columns * self.patch * self.merge, rows * self.patch * self.merge
        answers = [parse(text, width, height) for text in texts]
        merged = SpatialAnswer(
            boxes=tuple(b for a in answers for b in a.boxes),
            points=tuple(p for a in answers for p in a.points),
            traces=tuple(t for a in answers for t in a.traces),
            text="\n".join(texts),
            problems=tuple(p for a in answers for p in a.problems),
        )
        given = to_tensor(image, "cpu").shape
        return merged.scaled(given[1] / width, given[0] / height)


def _joined(sights: Sequence[Sight]) -> Tensor:
    return torch.cat([sight.features for sight in sights])
