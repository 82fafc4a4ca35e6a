"""Grounding data: annotated frames, conversations about them, and LLaVA-style files."""

from internvla_ros.data.grounding.centres import Centres
from internvla_ros.data.grounding.frames import GroundingFrame, conversation, episode_frames
from internvla_ros.data.grounding.llava import LlavaItem, read_llava, write_llava

__all__ = [
    "Centres",
    "GroundingFrame",
    "LlavaItem",
    "conversation",
    "episode_frames",
    "read_llava",
    "write_llava",
]
