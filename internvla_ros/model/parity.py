"""Every number of a recorded reference, computed again with this package's own parts.

A reference is a folder with a released run (`run/`), camera views (`inputs/`), `samples.json`, and
what the original implementation made of them in float32 (`reference.npz`, `reference.json`). What
is computed follows from the names of its arrays, so that any run with the same layout can be
checked, whatever its sizes, views, statistics and sampler settings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from internvla_ros.data.normalisation import Statistics
from internvla_ros.model.config import PolicyConfig
from internvla_ros.model.diffusion import Schedule, ddim_states
from internvla_ros.model.dit import timestep_embedding
from internvla_ros.model.guidance import NoisePredictor, withheld
from internvla_ros.model.images import expert_pixels, planner_pixels, to_tensor
from internvla_ros.model.language_model import hidden_states
from internvla_ros.model.plan import Plan
from internvla_ros.model.planner import Planner
from internvla_ros.model.policy import Policy
from internvla_ros.model.reader import Reading
from internvla_ros.model.released_names import to_ours
from internvla_ros.model.vision_expert import resampled_positions
from internvla_ros.model.vision_tower import patch_places
from internvla_ros.spatial.types import Turn

Array = NDArray[Any]
Named = Iterator[tuple[str, Array]]

SAMPLER = re.compile(r"(?:no)?cfg(\d*)_ddim(\d+)")
CONDITION_DROPOUT = 0.1
"""Share of plans that the released training withholds."""


class ParityError(ValueError):
    """A folder that is not a recorded reference."""


@dataclass(frozen=True)
class Sample:
    """One recorded call."""

    id: str
    views: tuple[Tensor, ...]
    instruction: str
    prompt: str
    image_size: tuple[int, int] | None


@dataclass(frozen=True)
class Reference:
    """A recorded reference, and the run that it was recorded from."""

    folder: Path
    arrays: Mapping[str, Array]
    facts: Mapping[str, Any]
    samples: Mapping[str, Sample]

    @classmethod
    def read(cls, folder: Path) -> Reference:
        """Raises `ParityError` naming the file that is missing or damaged."""
        needed = ["reference.npz", "reference.json", "samples.json", "run"]
        missing = [name for name in needed if not (folder / name).exists()]
        if missing:
            raise ParityError(f"{folder} is no recorded reference: it lacks {missing}")
        try:
            facts = json.loads((folder / "reference.json").read_text())
            listed = json.loads((folder / "samples.json").read_text())["samples"]
            samples = {entry["id"]: _sample(folder, entry) for entry in listed}
            with np.load(folder / "reference.npz") as stored:
                arrays = {name: stored[name] for name in stored.files}
        except (OSError, ValueError, KeyError) as error:
            raise ParityError(f"{folder}: {error}") from error
        return cls(folder, arrays, facts, samples)

    def settings(self, sample: str) -> list[tuple[str, float, int]]:
        """Name, guidance and steps of every sampler run of a sample."""
        found = {
            match[0]: match for name in self.arrays if (match := SAMPLER.match(after(name, sample)))
        }
        return [(n, int(m[1]) / 10 if m[1] else 1.0, int(m[2])) for n, m in found.items()]


def after(name: str, sample: str) -> str:
    """What follows the sample in an array's name; empty for another sample's."""
    return name.removeprefix(f"{sample}.") if name.startswith(f"{sample}.") else ""


def _sample(folder: Path, entry: Mapping[str, Any]) -> Sample:
    size = entry["image_size"]
    if isinstance(size, int):
        size = [size, size]
    views = tuple(to_tensor(Image.open(folder / path)) for path in entry["images"])
    return Sample(
        entry["id"],
        views,
        entry["instruction"],
        entry["cot_prompt"] or "{instruction}",
        None if size is None else (int(size[0]), int(size[1])),
    )


def as_recorded(policy: Policy, sample: Sample, *, lowercase: bool = True) -> PolicyConfig:
    """Set a policy to a sample's prompt template and image size; returns the configuration."""
    config = replace(
        policy.config,
        prompt=sample.prompt,
        lowercase_instruction=lowercase,
        planner=replace(policy.config.planner, image_size=sample.image_size),
    )
    policy.planner.policy_config, policy.planner.config = config, config.planner
    policy.actor.config = config
    return config


class SampleNumbers:
    """All numbers of one sample, each computed from the one before."""

    def __init__(self, policy: Policy, reference: Reference, sample: Sample) -> None:
        self.policy, self.reference, self.sample = policy, reference, sample
        self.config = as_recorded(policy, sample)
        self.facts = reference.facts.get(sample.id, {})

    @cached_property
    def patches(self) -> tuple[Tensor, Tensor]:
        """Patch rows of all views and their grid."""
        planner = self.policy.planner
        return planner_pixels(
            self.sample.views,
            self.sample.image_size,
            patch=planner.patch,
            merge=planner.merge,
            temporal=planner.temporal,
        )

    @cached_property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of every view's patches."""
        return tuple((int(rows), int(columns)) for _, rows, columns in self.patches[1].tolist())

    @cached_property
    def features(self) -> Tensor:
        """Merged image tokens of all views."""
        return self.policy.planner.features(self.patches[0], self.grids)

    @cached_property
    def reading(self) -> Reading:
        """The prompt."""
        planner = self.policy.planner
        (sight,) = planner.see([self.sample.views])
        prompt = planner.chat_format.prompt(
            planner.prompt(self.sample.instruction), sight.image_tokens
        )
        return planner.prepare([prompt], [sight.grids])

    @cached_property
    def hidden(self) -> Tensor:
        """All hidden states of the language model."""
        planner = self.policy.planner
        return planner.hidden_states(self.reading, self.features, 0, planner.num_layers + 1)

    @cached_property
    def expert(self) -> Tensor:
        """The vision expert's input [V, 3, h, w]."""
        return expert_pixels(self.sample.views, self.sample.image_size)

    @cached_property
    def condition(self) -> Tensor:
        """The QFormer's output."""
        layers = self.config.qformer
        tokens, _ = self.policy.actor.vision_expert.look(
            [self.sample.views], self.sample.image_size
        )
        used = self.hidden[layers.start_layer : layers.end_layer]
        return self.policy.actor.condition(used, tokens, None)

    def noise(self) -> Tensor:
        """The recorded initial noise."""
        return torch.from_numpy(self.reference.arrays[f"{self.sample.id}.noise"])

    def predictor(self, scale: float) -> NoisePredictor:
        """The actor under this sample."""
        actor = self.policy.actor
        steps = actor.schedule.steps
        return NoisePredictor(actor.dit, self.condition, None, None, scale=scale, steps=steps)

    def all(self) -> Named:
        """Every number, by the name after the sample's."""
        yield from self._inputs()
        yield from self._planner()
        yield from self._vision_expert()
        yield "qformer_out", _array(self.condition)
        yield from self._single_predictions()
        for name, scale, steps in self.reference.settings(self.sample.id):
            yield from self._sampled(name, scale, steps)

    def _inputs(self) -> Named:
        patches, grid = self.patches
        yield "input_ids", _array(self.reading.ids)
        yield "attention_mask", np.ones(self.reading.ids.shape, np.int64)
        yield "image_grid_thw", _array(grid)
        yield "position_ids", _array(self.reading.positions)
        rows = self.reference.arrays[f"{self.sample.id}.pixel_values_row_index"]
        yield "pixel_values_rows", _array(patches)[rows]
        yield "pixel_values_rowmean", _array(patches.double().mean(dim=1))
        yield "dino_input_sub", _array(self.expert[:, :, ::16, ::16])
        yield "dino_input_mean", _array(self.expert.double().mean(dim=(2, 3)))

    def _planner(self) -> Named:
        tower = self.policy.planner.tower
        layout = tower.layout(self.grids, torch.device("cpu"))
        places = torch.cat([patch_places(*grid, tower.merge) for grid in self.grids])
        rates = tower.model.rotary_pos_emb.inv_freq
        yield "visual.window_index", _array(layout.order)
        yield "visual.cu_window_seqlens", np.cumsum([0, *layout.window_lengths]).astype(np.int32)
        yield "visual.rotary_angles", _array((places[:, :, None] * rates).flatten(1))
        yield "image_embeds", _array(self.features)
        yield "hidden_states", _array(self.hidden)
        yield "logits_last", _array(self.policy.planner.logits(self.hidden[-1][:, -1]))

    def _vision_expert(self) -> Named:
        tokens = self.policy.actor.vision_expert.patch_tokens(self.expert)
        projected = self.policy.actor.vision_expert.projector(tokens).flatten(0, 1)[None]
        step = self.facts.get("dino_features_token_step", 1)
        yield "dino_features", _array(tokens)[:, ::step]
        yield (
            "dino_projected",
            _array(projected)[:, :: self.facts.get("dino_projected_token_step", 1)],
        )

    def _single_predictions(self) -> Named:
        for name in self.reference.arrays:
            match = re.fullmatch(r"dit_(?:cfg(\d+)_)?eps_t(\d+)", after(name, self.sample.id))
            if match:
                scale = int(match[1]) / 10 if match[1] else 1.0
                predict = self.predictor(scale)
                yield match[0], _array(predict(self.noise(), torch.tensor([int(match[2])])))

    def _sampled(self, name: str, scale: float, steps: int) -> Named:
        states, clean = [self.noise()], []
        for state, predicted in ddim_states(
            self.predictor(scale), self.noise(), self.policy.actor.schedule, steps
        ):
            states.append(state)
            clean.append(predicted)
        layers = self.config.qformer
        plan = Plan(self.hidden[layers.start_layer : layers.end_layer], None, ("",))
        actions = self.policy.actor.sample(
            [self.sample.views], plan, noise=self.noise(), num_ddim_steps=steps, guidance=scale
        )
        yield f"{name}.x", _array(torch.stack(states))
        yield f"{name}.pred_xstart", _array(torch.stack(clean))
        yield f"{name}.normalized_actions", _array(actions)
        for key, statistics in self.policy.statistics.items():
            yield f"{name}.actions.{key}", statistics.action.unnormalise(_array(actions[0]))


def numbers(policy: Policy, reference: Reference) -> Named:
    """All arrays that a reference may hold, by their names."""
    with torch.inference_mode():
        for sample in reference.samples.values():
            for name, value in SampleNumbers(policy, reference, sample).all():
                yield f"{sample.id}.{name}", value
        yield from _tables(policy, reference)
        yield from _unnormalised(policy, reference)
        if "batch.noise" in reference.arrays:
            yield from _batch(policy, reference)
        if "chat" in reference.facts:
            yield from _chat(policy, reference)
    if "train.actions" in reference.arrays:
        yield from _training(policy, reference)


def _tables(policy: Policy, reference: Reference) -> Named:
    schedule: Schedule = policy.actor.schedule
    alphas = schedule.alphas_cumprod
    yield "schedule.alphas_cumprod", _array(alphas)
    before = torch.cat([torch.ones(1, dtype=torch.float64), alphas[:-1]])
    yield "schedule.betas", _array(1 - alphas / before)
    for name in reference.arrays:
        if match := re.fullmatch(r"schedule\.ddim(\d+)\.timestep_map", name):
            visited = schedule.sampling_timesteps(int(match[1]))
            kept = _array(alphas[visited])
            yield name, np.array(visited)
            yield f"schedule.ddim{match[1]}.alphas_cumprod", kept
            yield f"schedule.ddim{match[1]}.alphas_cumprod_prev", np.array([1.0, *kept[:-1]])
        if match := re.fullmatch(r"dino\.pos_embed_interpolated_(\d+)x(\d+)", name):
            table = policy.actor.vision_expert.body.embeddings.position_embeddings
            positions = resampled_positions(table, int(match[1]), int(match[2]))
            yield name, _array(positions)[:, ::4]
    timesteps = torch.from_numpy(reference.arrays["schedule.timestep_embedding_t"])
    yield "schedule.timestep_embedding", _array(timestep_embedding(timesteps))
    yield "schedule.t_embedder", _array(policy.actor.dit.time(timesteps))


def _unnormalised(policy: Policy, reference: Reference) -> Named:
    given = reference.arrays["unnorm.input"]
    for key, statistics in policy.statistics.items():
        action: Statistics = statistics.action
        unmasked = replace(action, mask=np.ones_like(action.mask))
        yield f"unnorm.{key}.output", action.unnormalise(given)
        yield f"unnorm.{key}.output_without_mask", unmasked.unnormalise(given)


def _batch(policy: Policy, reference: Reference) -> Named:
    facts = reference.facts["batch"]
    samples = [reference.samples[name] for name in facts["samples"]]
    size = facts["image_size"]
    common = replace(
        samples[0],
        prompt=facts["cot_prompt"] or "{instruction}",
        image_size=None if size is None else tuple(size),
    )
    as_recorded(policy, common)
    planner = policy.planner
    views = [list(sample.views) for sample in samples]
    sights = planner.see(views)
    prompts = [
        planner.chat_format.prompt(planner.prompt(sample.instruction), sight.image_tokens)
        for sample, sight in zip(samples, sights, strict=True)
    ]
    reading = planner.prepare(prompts, [sight.grids for sight in sights])
    mask = torch.ones_like(reading.ids) if reading.mask is None else reading.mask
    grids = [planner.grid((v.shape[1], v.shape[0]), common.image_size) for r in views for v in r]
    plan = planner.plan(views, [sample.instruction for sample in samples])
    actions = policy.actor.sample(
        views,
        plan,
        noise=torch.from_numpy(reference.arrays["batch.noise"]),
        num_ddim_steps=10,
        guidance=1.5,
    )
    yield "batch.input_ids", _array(reading.ids)
    yield "batch.attention_mask", _array(mask)
    yield "batch.position_ids", _array(reading.positions)
    yield "batch.image_grid_thw", np.array([(1, *grid) for grid in grids])
    yield "batch.one_by_one.normalized_actions", _array(actions)


def _chat(policy: Policy, reference: Reference) -> Named:
    facts = reference.facts["chat"]
    picture = to_tensor(Image.open(reference.folder / facts["image"]))
    planner, tokens = policy.planner, facts["max_new_tokens"]
    (sight,) = planner.see([[picture]], native=True)
    turns = [Turn(facts["question"], "")]
    yield (
        "chat.input_ids",
        np.array([planner.chat_format.conversation(turns, sight.image_tokens)]),
    )
    for name, penalty in (("greedy", 1.0), ("generation_config", 1.05)):
        ids = _answered(planner, picture, facts["question"], tokens, penalty)
        yield f"chat.generated_ids_{name}", np.array([ids])


def _answered(
    planner: Planner, picture: Tensor, question: str, tokens: int, penalty: float
) -> list[int]:
    planner.config = replace(planner.config, native_answers=True)
    return planner.chat_ids([picture], question, max_tokens=tokens, repetition_penalty=penalty)


def _training(policy: Policy, reference: Reference) -> Named:
    """The released training loss, in eval mode, its gradients, and the dropped conditions."""
    given, facts = reference.arrays, reference.facts["train"]
    condition = _trained_condition(policy, reference)
    actor, chunk = policy.actor, policy.config.actor.chunk_size
    noise = torch.from_numpy(given["train.noise"])
    timesteps = torch.from_numpy(given["train.timesteps"])
    repeats = int(facts["repeated_diffusion_steps"])
    for name, dtype in (("f32", torch.float32), ("f16", torch.float16)):
        actions = torch.from_numpy(given["train.actions"])[None, -chunk:].to(dtype).float()
        noised = actor.schedule.noised(actions.repeat(repeats, 1, 1), noise, timesteps)
        predicted = actor.dit(noised, timesteps, condition.repeat(repeats, 1, 1))
        loss = ((predicted - noise) ** 2).mean()
        yield f"train.{name}.loss", _array(loss)
        yield f"train.{name}.x_t", _array(noised)
        yield f"train.{name}.noise_pred", _array(predicted)
        if dtype == torch.float32:
            loss.backward(retain_graph=True)
            yield from _gradients(policy, reference)
    draws = torch.from_numpy(given["train.cond_drop.uniform_draws"])
    plan = torch.from_numpy(given[f"{facts['sample']}.qformer_out"]).repeat(repeats, 1, 1)
    dropped = withheld(plan, actor.dit.uncondition, draws, CONDITION_DROPOUT)
    noised = torch.from_numpy(given["train.f32.x_t"])
    yield "train.cond_drop.noise_pred", _array(actor.dit(noised, timesteps, dropped))


def _trained_condition(policy: Policy, reference: Reference) -> Tensor:
    """The condition tokens of the training sample, with a graph back to all weights."""
    facts = reference.facts["train"]
    sample = replace(
        reference.samples[facts["sample"]],
        instruction=facts["instruction_not_lowercased"],
        prompt=facts["cot_prompt"] or "{instruction}",
        image_size=None,
    )
    config, planner = as_recorded(policy, sample, lowercase=False), policy.planner
    (sight,) = planner.see([sample.views])
    prompt = planner.chat_format.prompt(planner.prompt(sample.instruction), sight.image_tokens)
    reading = planner.prepare([prompt], [sight.grids])
    embeds = planner.embed(reading.ids, reading.slots, sight.features)
    layers = range(config.qformer.start_layer, config.qformer.end_layer)
    language = planner.vlm.model.language_model
    states = torch.stack(hidden_states(language, embeds, reading.positions, wanted=layers))
    tokens, _ = policy.actor.vision_expert.look([sample.views], None)
    return policy.actor.condition(states, tokens, None)


def _gradients(policy: Policy, reference: Reference) -> Named:
    """Gradients by released names: those recorded whole, and the norms of all."""
    for name in reference.arrays:
        if name.startswith("train.f32.grad."):
            yield name, _array(_gradient(policy, name.removeprefix("train.f32.grad.")))
    norms = reference.facts["train_grad_l2"]
    yield "train_grad_l2", np.array([float(_gradient(policy, name).norm()) for name in norms])
    idle = reference.facts["train_no_grad"]
    yield "train_no_grad", np.array([_has_gradient(policy, name) for name in idle])


def _gradient(policy: Policy, released: str) -> Tensor:
    parts = [policy.get_parameter(name).grad for name in to_ours(released, "new")]
    return torch.cat([part for part in parts if part is not None])


def _has_gradient(policy: Policy, released: str) -> bool:
    return any(policy.get_parameter(n).grad is not None for n in to_ours(released, "new"))


def expected(reference: Reference) -> dict[str, Array]:
    """What is compared: the arrays that are outputs, and the facts beside them."""
    inputs = re.compile(
        r"\w+\.noise|\w+\.pixel_values_row_index|batch\.(fa2|sdpa|eager)\..*|unnorm\.input"
        r"|schedule\.timestep_embedding_t|train\.(actions|noise|timesteps)"
        r"|train\.cond_drop\.uniform_draws"
    )
    arrays = {n: a for n, a in reference.arrays.items() if not inputs.fullmatch(n)}
    if "train_grad_l2" in reference.facts:
        arrays["train_grad_l2"] = np.array(list(reference.facts["train_grad_l2"].values()))
        arrays["train_no_grad"] = np.zeros(len(reference.facts["train_no_grad"]), dtype=bool)
    return arrays


def _array(tensor: Tensor) -> Array:
    return tensor.detach().cpu().numpy()
